"""Axes of a chart: a scale from values to places, and ticks at round values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Values low..high drawn at start..end, in units of the drawing; end may be below start."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value is drawn; one outside is drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """At most so many round values within the axis."""
        step = _step((self.high - self.low) / max(most, 1))
        first = math.ceil(self.low / step - 1e-9)
        return [round(k * step, 12) for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def around(values: Sequence[float], start: float, end: float, *, least: float, margin: float = 0.12) -> Axis:
    """An axis with room on both sides of the values.

    Args:
        least: the narrowest range, so that equal values are not blown up.
        margin: room on each side, a share of the range.
    """
    low, high = min(values), max(values)
    missing = max(0.0, least - (high - low)) / 2
    room = max(high - low, least) * margin
    return Axis(low - missing - room, high + missing + room, start, end)


def _step(rough: float) -> float:
    """The next step of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough * (1 - 1e-9)), 10 * power)


def steps(axis: Axis, show: Callable[[float], str], most: int = 5) -> list[tuple[float, str]]:
    """(place, label) of the ticks."""
    return [(axis(value), show(value)) for value in axis.ticks(most)]
