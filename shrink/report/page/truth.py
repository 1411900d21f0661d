"""What each file really is: how much of it computes in 8 bits, what does not, and why."""

from __future__ import annotations

from collections.abc import Iterator

from device_runner.manifest import Leftover
from shrink.report.markup import Content, Markup, el
from shrink.report.page.charts import shares
from shrink.report.page.parts import bullets, facts, name, table
from shrink.report.page.parts import section as _section
from shrink.report.schema import Artifact, Report
from shrink.report.text import percent

MOST = 8  # kinds of ops that are left in float, shown


def section(report: Report) -> Markup:
    """The label of every file, read from the file itself."""
    return _section(
        "What the files really are",
        "Read from the written files and the runtimes that load them, not from what was asked for.",
        el("div.cards", *(_label(artifact) for artifact in report.artifacts)),
    )


def _label(artifact: Artifact) -> Markup:
    t = artifact.truth
    fixed = max(t.int8_mac_share - t.dynamic_mac_share, 0.0)
    parts = [("file", fixed), ("soft", t.dynamic_mac_share), ("rest", max(1 - t.int8_mac_share, 0.0))]
    return el(
        "article.card",
        el("h3", name(artifact.target)),
        shares(parts),
        el("p.small", f"{percent(fixed, 1)} int8, {percent(t.dynamic_mac_share, 1)} int8 with ranges of run time, "
           f"{percent(1 - t.int8_mac_share, 1)} float, of the multiply-accumulates"),
        facts(_facts(artifact)),
        _leftovers(artifact),
        *_declined(artifact),
    )  # fmt: skip


def _facts(artifact: Artifact) -> Iterator[tuple[str, Content]]:
    t = artifact.truth
    yield "file", name(artifact.file)
    yield "in, out", f"{t.input_dtype} → {t.output_dtype}"
    yield "weights in int8", percent(t.int8_weight_share, 1)
    yield "ops", f"{t.ops:,}"
    if t.delegate:
        partitions = "an unknown number of" if t.delegate_partitions is None else t.delegate_partitions
        yield "delegate", f"{t.delegate}, {partitions} partitions"
    if t.undelegated_ops:
        yield "outside of it", ", ".join(t.undelegated_ops)


def _leftovers(artifact: Artifact) -> Content:
    left = artifact.truth.leftovers
    if not left:
        return None
    rows = [_leftover(one) for one in left[:MOST]]
    return table(("still float", "ops", "MACs", "why"), rows, numbers=1)


def _leftover(one: Leftover) -> list[Content]:
    return [name(one.op), f"{one.count}", percent(one.mac_share, 1), one.reason]


def _declined(artifact: Artifact) -> Iterator[Content]:
    lines = [f"declined {one.what}: {one.why}" for one in artifact.skipped]
    if lines or artifact.changes:
        yield el("h4", "Done and declined")
        yield bullets([*lines, *artifact.changes], shown=4)
