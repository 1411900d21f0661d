"""report.md: for a person who decides whether to ship, the verdict first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from shrink.report import table
from shrink.report.next_steps import next_steps
from shrink.report.schema import Artifact, Report, Rung
from shrink.report.text import fence, item, markdown, percent, shell

SHOWN = 20
"""Skipped images listed by name; report.json has them all."""

VERDICTS = {
    "pass": "**Verdict: pass.** Every artefact keeps the accuracy that was asked for.",
    "fail": "**Verdict: fail.** At least one artefact lost more accuracy than was allowed.",
    "not enough images": "**Verdict: not enough images.** The drop cannot be told from the limit yet.",
}


def render(report: Report, out_dir: PurePath) -> str:
    """The report as GitHub Markdown.

    Args:
        out_dir: where the bundles lie, as the reader would type it in the commands.
    """
    parts: tuple[Iterable[str], ...] = (
        (f"# {markdown(report.model.spec)}, made small", ""),
        _verdict(report),
        _table(report),
        _ladder(report),
        _leftovers(report),
        _notes(report),
        _conditions(report),
        _commands("How to reproduce", [shell(report.command)]),
        _next(report, out_dir),
    )
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _verdict(report: Report) -> list[str]:
    lines = map(item, map(table.sentence, report.artifacts))
    return [VERDICTS[report.verdict], "", *lines, *(item(f"note: {note}") for note in report.notes), ""]


def _table(report: Report) -> list[str]:
    names = [markdown(name) for name in table.header(report)]
    return [
        "## Float against each artefact",
        "",
        _line(names),
        _line(["---", *("---:" for _ in names[1:])]),
        *(_line([label, *map(markdown, cells)]) for label, cells in table.rows(report)),
        "",
        "Drop: float minus artefact, so a negative one is a gain; its interval is Tango's for paired answers. "
        "The verdict asks whether the drop is within the limit by a one-sided 95 % bound. "
        "Flips: images that only float, or only the artefact, names rightly.",
        "",
        *(item(f"{c.a} and {c.b}: same answer for {percent(c.agreement)}") for c in report.cross),
        "",
    ]


def _ladder(report: Report) -> list[str]:
    climbed = [artifact for artifact in report.artifacts if artifact.rungs]
    if not climbed:
        return []
    rows = [(artifact.target, rung) for artifact in climbed for rung in artifact.rungs]
    return [
        "## What each step of quantization bought",
        "",
        "Error: of the scores on calibration images held out for this, root mean square over their standard deviation. "
        "A step is kept if it makes the error of those kept before it smaller; of steps that are as good, the one that "
        "another file kept, so that the files answer alike.",
        "",
        _line(["target", "step", "error", "kept"]),
        _line(["---", "---", "---:", "---"]),
        *(_line([markdown(t), markdown(r.what), percent(r.error), _kept(r)]) for t, r in rows),
        "",
    ]


def _kept(rung: Rung) -> str:
    said = "yes" if rung.kept else "no"
    return f"{said}: {markdown(rung.why)}" if rung.why else said


def _leftovers(report: Report) -> list[str]:
    lines = [line for artifact in report.artifacts for line in _leftovers_of(artifact)]
    return ["## What still runs in float", "", *(lines or ["Nothing that int8 was asked for."]), ""]


def _leftovers_of(artifact: Artifact) -> list[str]:
    target, truth = artifact.target, artifact.truth
    lines = [
        item(f"{target}: {left.count} x {left.op}, {percent(left.mac_share)} of MACs: {left.reason}")
        for left in truth.leftovers
    ]
    if truth.undelegated_ops:
        lines.append(item(f"{target}: outside the delegate: {', '.join(truth.undelegated_ops)}"))
    return lines


def _notes(report: Report) -> list[str]:
    skipped = report.data.skipped
    lines = [
        *map(item, report.data.notes),
        *(item(f"skipped image {image.ref}: {image.reason}") for image in skipped[:SHOWN]),
        *([f"- and {len(skipped) - SHOWN} more images, all in report.json"] if len(skipped) > SHOWN else []),
        *(line for artifact in report.artifacts for line in _notes_of(artifact)),
    ]
    return ["## Notes", "", *(lines or ["None: no image was skipped, no step declined."]), ""]


def _notes_of(artifact: Artifact) -> list[str]:
    return [
        *(item(f"{artifact.target} declined {declined.what}: {declined.why}") for declined in artifact.skipped),
        *(item(f"{artifact.target} changed {change}") for change in artifact.changes),
    ]


def _conditions(report: Report) -> list[str]:
    model, data = report.model, report.data
    return [
        "## How it was measured",
        "",
        f"- model: {markdown(model.spec)}, weights {markdown(model.weights)}, {model.outputs} outputs, "
        f"{model.parameters:,} parameters, {model.macs:,} MACs; checkpoint sha256 {model.checkpoint_sha256 or 'none'}",
        f"- data: {markdown(data.name)}; {data.calibration_images:,} images for calibration, "
        f"{data.evaluation_images:,} others for evaluation, {len(data.skipped)} skipped",
        f"- float: {markdown(report.reference.framework)}, {report.reference.images:,} images",
        f"- host: {markdown(report.host)}",
        *_latency(report),
        f"- time: {', '.join(f'{markdown(stage)} {seconds:.1f} s' for stage, seconds in report.seconds.items())}",
        f"- versions: {', '.join(markdown(f'{name} {version}') for name, version in report.versions.items())}",
        f"- created: {markdown(report.created)}",
        "",
    ]


def _latency(report: Report) -> list[str]:
    if not any(artifact.latency for artifact in report.artifacts):
        return ["- latency: not measured"]
    timed = [(a.target, doubt) for a in report.artifacts if a.timing for doubt in a.timing.warnings]
    return [
        "- latency: one thread **of this host, not of the device**; the files take turns in random order, so "
        "trust a ratio more than its milliseconds, and measure both again on the device",
        *(item(f"doubt about the latency of {target}: {doubt}") for target, doubt in timed),
    ]


def _next(report: Report, out_dir: PurePath) -> list[str]:
    commands = next_steps(report, out_dir)
    return _commands("Next", commands) if commands else []


def _commands(title: str, commands: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *fence(commands), ""]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
