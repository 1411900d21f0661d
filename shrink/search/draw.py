"""The front as pictures: points lost against size, and against time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from shrink.report.pareto import Label, Mark, Point, pareto, standalone
from shrink.report.text import milliseconds
from shrink.search.front import front, winner
from shrink.search.goal import Figures
from shrink.search.trials import Entry, Head

LOST = Label("top-1 against the float model, points", lambda value: f"{value + 0.0:.2f}", 0.2)

ACROSS: Mapping[str, tuple[Callable[[Figures], float | None], Label]] = {
    "size.svg": (lambda figures: figures.size_mb, Label("size, MB", lambda value: f"{value:.3g}", 0.01)),
    "latency.svg": (lambda figures: figures.latency_ms, Label("latency", milliseconds, 0.001)),
}
"""File -> what is drawn from left to right."""


def pictures(head: Head, entries: Sequence[Entry]) -> dict[str, str]:
    """File name -> SVG; empty where no trial is finished."""
    found = {name: list(_points(head, entries, value)) for name, (value, _) in ACROSS.items()}
    return {name: standalone(pareto(points, ACROSS[name][1], LOST)) for name, points in found.items() if points}


def _points(head: Head, entries: Sequence[Entry], value: Callable[[Figures], float | None]) -> Iterator[Point]:
    """The front has names; the winner is marked; other trials are pale."""
    best = winner(head.goal, entries)
    named = {entry.number for entry in front(entries)}
    for entry in (one for one in entries if one.result):
        assert entry.result is not None
        figures = entry.result.figures
        if (across := value(figures)) is None or figures.drop is None:
            continue
        mark: Mark = "chosen" if best and best.number == entry.number else "file" if entry.number in named else "other"
        low, high = max(entry.result.files, key=lambda file: file.drop).interval()
        shown = {"low": -high, "high": -low} if mark == "chosen" else {}
        yield Point(f"trial {entry.number}" if mark != "other" else "", across, -figures.drop, mark, **shown)
