"""The verdict first: on the whole, and on each file with the figures it rests on."""

from __future__ import annotations

from collections.abc import Iterator

from shrink.report import table
from shrink.report.analysis import Analysis
from shrink.report.markup import Content, Markup, el
from shrink.report.page.parts import PILLS, name, pill
from shrink.report.schema import Artifact, Report
from shrink.report.text import factor, percent, points, size

WORDS = {
    "pass": ("Pass", "Every file keeps the accuracy that was asked for."),
    "fail": ("Fail", "At least one file lost more accuracy than was allowed."),
    "not enough images": ("Not enough images", "The drop cannot be told from the limit yet."),
}


def section(analysis: Analysis) -> Markup:
    """The head of the page."""
    report = analysis.report
    title, sentence = WORDS[report.verdict]
    return el(
        "header",
        el("p.kicker", "shrink report"),
        el("h1", name(report.model.spec)),
        el("p.sub", _about(report)),
        el(f"div.banner.{PILLS[report.verdict]}", el("strong", title), el("span", sentence)),
        el("div.cards", *(_card(artifact) for artifact in report.artifacts)),
        *(el("p.note", note) for note in (*report.notes, *analysis.notes)),
    )


def _about(report: Report) -> str:
    return (
        f"{report.model.parameters:,} parameters, {report.model.macs:,} multiply-accumulates. Float top-1 "
        f"{percent(report.reference.top1)} on {report.reference.images:,} images of {report.data.name}."
    )


def _card(artifact: Artifact) -> Markup:
    verdict = artifact.accuracy.verdict if artifact.accuracy else "not measured"
    figures = el("dl.figures", *(el("div", el("dt", term), el("dd", *fact)) for term, *fact in _figures(artifact)))
    return el(
        "article.card",
        el("h3", name(artifact.target), pill(verdict)),
        figures,
        el("p.small", _sentence(artifact)),
    )


def _sentence(artifact: Artifact) -> str:
    """What the verdict rests on; the verdict itself is above it."""
    said = table.sentence(artifact).removeprefix(f"{artifact.target}: ")
    return said.partition("; ")[2] if artifact.accuracy else said


def _figures(artifact: Artifact) -> Iterator[tuple[str, Content, Content]]:
    accuracy, latency, truth = artifact.accuracy, artifact.latency, artifact.truth
    if accuracy:
        yield "top-1", percent(accuracy.top1), el("small", f"{_signed(-accuracy.drop)} points")
    ratio = artifact.size_bytes / artifact.float_size_bytes if artifact.float_size_bytes else None
    yield "size", size(artifact.size_bytes), el("small", f"{factor(ratio)} float") if ratio else None
    if latency and latency.ratio_to_float is not None:
        yield "time", factor(latency.ratio_to_float), el("small", "of float, this host")
    partial = truth.dynamic_mac_share
    note = f"{percent(partial, 0)} with ranges of run time" if partial >= 0.005 else "of the arithmetic"
    yield "int8", percent(truth.int8_mac_share, 0), el("small", note)


def _signed(rate: float) -> str:
    """
    >>> _signed(0.0012), _signed(-0.0012), _signed(0.0)
    ('+0.12', '−0.12', '0.00')
    """
    text = points(rate)
    return f"−{text[1:]}" if text.startswith("-") else f"+{text}" if text != "0.00" else text
