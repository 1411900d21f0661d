"""How it was measured, from what, and how to do it again."""

from __future__ import annotations

from collections.abc import Iterator

from shrink.report.analysis import Analysis
from shrink.report.markup import Content, Markup, el, whole
from shrink.report.page.parts import bullets, facts, name
from shrink.report.page.parts import section as _section
from shrink.report.schema import Report
from shrink.report.text import milliseconds, shell


def section(analysis: Analysis) -> Markup:
    """Conditions, provenance and the command."""
    report = analysis.report
    notes = [*report.data.notes, *(f"skipped image {one.ref}: {one.reason}" for one in report.data.skipped)]
    return _section(
        "How it was measured",
        "Latency is of one thread of this host, not of the device; the files take turns in random order, so trust a "
        "ratio more than its milliseconds.",
        facts(_facts(report)),
        bullets([*notes, *_doubts(report)]),
        el("h3", "Where it comes from"),
        facts(_provenance(report)),
        el("h3", "Do it again"),
        el("pre", el("code", whole(shell(report.command)))),
    )


def _facts(report: Report) -> Iterator[tuple[str, Content]]:
    data = report.data
    yield "data", name(data.name)
    yield "images", f"{data.evaluation_images:,} to judge, {data.calibration_images:,} others to calibrate"
    yield "skipped", f"{len(data.skipped)}" if data.skipped else None
    yield "host", name(report.host)
    for a in report.artifacts:
        if a.latency:
            t = a.latency
            yield a.target, f"median {milliseconds(t.median_ms)}, p90 {milliseconds(t.p90_ms)}, {t.samples} samples"
    yield "took", f"{sum(report.seconds.values()):.0f} s"


def _doubts(report: Report) -> Iterator[str]:
    for a in report.artifacts:
        for doubt in a.timing.warnings if a.timing else ():
            yield f"doubt about the latency of {a.target}: {doubt}"


def _provenance(report: Report) -> Iterator[tuple[str, Content]]:
    model = report.model
    yield "model", name(model.spec)
    yield "weights", name(model.weights)
    yield "SHA-256", el("code", model.checkpoint_sha256) if model.checkpoint_sha256 else None
    yield "float model", name(report.reference.framework)
    yield "versions", ", ".join(f"{package} {version}" for package, version in report.versions.items())
    yield "made", report.created
