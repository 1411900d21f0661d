"""A comparison as a table: on the terminal, in Markdown, as JUnit XML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shrink.compare.comparison import Comparison, Row
from shrink.compare.gates import Estimate
from shrink.report import junit
from shrink.report.junit import Case
from shrink.report.text import item, markdown, plain

HEAD = ("file", "metric", "old", "new", "change", "bounds, 95 % each", "gate", "verdict")

SENTENCES = {
    "pass": "every gate holds",
    "fail": "at least one gate does not hold",
    "cannot tell": "at least one gate cannot be told: give more images or samples, or allow more",
    "": "no gate was given",
}


def text(found: Comparison) -> str:
    """For a terminal or a log: columns of printable text."""
    rows = [HEAD, *map(_cells, _shown(found))]
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, "", *map(plain, _notes(found)), _verdict(found)])


def comment(found: Comparison) -> str:
    """GitHub Markdown for a pull request."""
    mark = {"pass": "✅", "fail": "❌", "cannot tell": "❔", "": "ℹ️"}[found.verdict]
    return "\n".join(
        [
            f"### {mark} {markdown(_verdict(found))}",
            "",
            f"{markdown(found.old)} against {markdown(found.new)}",
            "",
            _line(HEAD),
            _line(["---", "---", *(["---:"] * 4), "---", "---"]),
            *(_line(map(markdown, _cells(row))) for row in _shown(found)),
            "",
            *(item(note) for note in _notes(found)),
            "",
        ]
    )


def suite(found: Comparison) -> str:
    """JUnit XML: a case per gate and file."""
    gated = [row for row in found.rows if row.gate is not None]
    return junit.render(f"shrink compare {found.old} {found.new}", [_case(row) for row in gated])


def _case(row: Row) -> Case:
    assert row.gate is not None
    said = ", ".join(f"{name} {cell}" for name, cell in zip(HEAD[2:6], _cells(row)[2:6], strict=True))
    return Case(f"{row.target} {row.gate.text}", said, None if row.outcome == "pass" else row.outcome)


def _shown(found: Comparison) -> list[Row]:
    return [row for row in found.rows if isinstance(row.found, Estimate)]


def _cells(row: Row) -> list[str]:
    one = row.found
    assert isinstance(one, Estimate)
    is_drop = row.metric == "drop"
    change = f"{-one.value + 0.0:+.2f} points" if is_drop else f"{one.value:.3f} x"
    low, high = sorted((-one.low, -one.high)) if is_drop else (one.low, one.high)
    spread = "exact" if one.low == one.high else f"{low:+.2f} to {high:+.2f}" if is_drop else f"{low:.3f} to {high:.3f}"
    name = "top-1" if is_drop else row.metric
    return [row.target, name, one.old, one.new, change, spread, row.gate.text if row.gate else "-", row.outcome or "-"]


def _notes(found: Comparison) -> Iterator[str]:
    for row in found.rows:
        if isinstance(row.found, Estimate):
            yield from (f"{row.target}, {row.metric}: {note}" for note in row.found.notes)
        elif row.found.is_unlike:
            yield f"{row.target}: {row.metric} is not compared: {row.found.why}"
    yield from found.notes


def _verdict(found: Comparison) -> str:
    return f"verdict: {found.verdict or 'none'}; {SENTENCES[found.verdict]}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
