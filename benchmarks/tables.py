"""Markdown tables and the small statistics that the results are shown with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from shrink.bench.latency import Samples, ratio

NONE = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column is text, the others are numbers."""
    lines = [_line(header), _line(["---", *("---:" for _ in header[1:])])]
    return [*lines, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def times(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Time of a over time of b, the median over the rounds of both; None if one was not timed."""
    if not a or len(a) != len(b):
        return None
    return ratio(Samples(tuple(a)), Samples(tuple(b))).median


def geometric_mean(values: Iterable[float]) -> float | None:
    """None of nothing.

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def number(value: float | None, digits: int = 2) -> str:
    """
    >>> number(0.256), number(None)
    ('0.26', '–')
    """
    return NONE if value is None else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """
    >>> percent(0.987)
    '98.7 %'
    """
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def tiny(value: float | None) -> str:
    """
    >>> tiny(0.0000123)
    '1e-05'
    """
    return NONE if value is None else f"{value:.0e}"
