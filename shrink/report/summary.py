"""A run for a pull request, short, and for a CI server."""

from __future__ import annotations

from collections.abc import Iterator

from shrink.report import junit, table
from shrink.report.analysis import CLASS, Analysis, FileAnalysis, Grouped
from shrink.report.junit import Case
from shrink.report.markdown import VERDICTS
from shrink.report.schema import Artifact
from shrink.report.text import item, markdown, percent, points

ROWS = ("top-1", "drop, points", "drop, 95 % interval", "verdict", "size", "size / float", "latency / float")
NAMED = 3  # groups in a sentence


def comment(analysis: Analysis) -> str:
    """GitHub Markdown for a pull request: the verdict, the main figures, and where the drop is."""
    report = analysis.report
    names = [markdown(name) for name in table.header(report)]
    rows = [(label, cells) for label, cells in table.rows(report) if label.startswith(ROWS)]
    lines = [
        f"### {markdown(report.model.spec)}",
        "",
        VERDICTS[report.verdict],
        "",
        f"| {' | '.join(names)} |",
        f"| --- | {' | '.join('---:' for _ in names[1:])} |",
        *(f"| {label} | {' | '.join(map(markdown, cells))} |" for label, cells in rows),
        "",
        *(item(line) for file in analysis.files for line in _where(file)),
        *(item(f"{o.name}: top-1 {percent(o.top1)} on {o.images:,} images ({o.where})") for o in analysis.others),
        *(item(f"note: {note}") for note in (*report.notes, *analysis.notes)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def suite(analysis: Analysis) -> str:
    """JUnit XML: a case per file."""
    return junit.render(f"shrink report {analysis.run}", [_case(artifact) for artifact in analysis.report.artifacts])


def _case(artifact: Artifact) -> Case:
    verdict = artifact.accuracy.verdict if artifact.accuracy else "accuracy was not measured"
    return Case(artifact.target, table.sentence(artifact), None if verdict == "pass" else verdict)


def _where(file: FileAnalysis) -> Iterator[str]:
    lost = sum(flip.is_lost for flip in file.flips)
    shown = ", ".join(f"{c.label}: {c.before} to {c.now} ({c.images})" for c in file.changes[:NAMED])
    if shown:
        yield f"{file.target}: most frequent changes are {shown}"
    for grouped in file.grouped:
        yield f"{file.target}: {worst(grouped)}"
    if not lost:
        yield f"{file.target}: no image was lost"


def worst(grouped: Grouped) -> str:
    """Which class or slice loses most, and which lose more than chance explains."""
    first, kind = grouped.groups[0], "class" if grouped.by == CLASS else grouped.by
    if first.drop <= 0:
        return f"by {kind}, none lost anything"
    sure = [group.name for group in grouped.groups if group.is_sure]
    named = f"{', '.join(sure[:NAMED])}{f' and {len(sure) - NAMED} more' if len(sure) > NAMED else ''}"
    rest = f"more than chance: {named}" if sure else "within chance, as is every other"
    return f"by {kind}, {first.name} loses most, {points(first.drop)} points of {first.images} images; {rest}"
