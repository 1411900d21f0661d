"""What is promised, what a point of the search has, and how far the two are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from shrink.errors import RecipeError


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a point, the worst of its files; None: not known yet.

    Of a point that is still being made these are its best case: what it has at least.
    """

    drop: float | None = None  # points of top-1 that are lost, as measured
    drop_likely: float | None = None  # that are not exceeded in 84 of 100 cases: one standard error more
    size_mb: float | None = None  # 1e6 bytes
    size_ratio: float | None = None  # to the file of the whole float model
    latency_ms: float | None = None  # median; None also where nothing may be timed
    latency_ratio: float | None = None  # to the file of the whole float model, in turns with it


Look = Callable[[str, Figures], None]
"""Told which look was taken and the best case that is left; raises where that is not enough."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """The limits; None: there is none.

    Raises:
        RecipeError: a limit is out of its range, or there is none but that of the answers.
    """

    max_drop: float = 1.0  # points of top-1, 0..100
    size_mb: float | None = None  # 1e6 bytes, > 0
    latency_ms: float | None = None  # > 0
    smaller: float | None = None  # times, than the file of the whole float model, > 0
    faster: float | None = None  # times, > 0

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 100:
            why = "it is the loss of top-1 that is allowed, in points"
            raise RecipeError(f"max_drop is {self.max_drop:g}", why, "use a number of 0 to 100, such as 0.5")
        for key in ("size_mb", "latency_ms", "smaller", "faster"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise RecipeError(f"{key} is {value:g}", "no model can keep it", "use a number above 0")

    def gaps(self, figures: Figures) -> dict[str, float]:
        """How far each limit is missed, as a share of it; at most 0 where it is kept, and 0 where nothing is known."""
        found = {}
        for key, (figure, gap, _) in LIMITS.items():
            limit, value = getattr(self, key), getattr(figures, figure)
            if limit is not None:
                found[key] = 0.0 if value is None else gap(value, limit)
        return found

    def gap(self, figures: Figures) -> float:
        """All that is missed, added up; 0 where every limit is kept."""
        return sum(max(0.0, gap) for gap in self.gaps(figures).values())

    @property
    def timed(self) -> bool:
        """Whether a limit is one of time."""
        return self.latency_ms is not None or self.faster is not None

    def __str__(self) -> str:
        given = ((getattr(self, key), words) for key, (_, _, words) in LIMITS.items())
        return ", ".join(words.format(limit) for limit, words in given if limit is not None)


LEAST_DROP = 0.1  # points; a limit of 0 has no share


def _lost(value: float, most: float) -> float:
    return (value - most) / max(most, LEAST_DROP)


def _above(value: float, most: float) -> float:
    return value / most - 1


def _times(ratio: float, times: float) -> float:
    return ratio * times - 1


LIMITS: Mapping[str, tuple[str, Callable[[float, float], float], str]] = {
    "max_drop": ("drop_likely", _lost, "at most {:g} points lost"),
    "size_mb": ("size_mb", _above, "at most {:g} MB"),
    "latency_ms": ("latency_ms", _above, "at most {:g} ms"),
    "smaller": ("size_ratio", _times, "at least {:g}x smaller"),
    "faster": ("latency_ratio", _times, "at least {:g}x faster"),
}
"""Limit -> the figure it is about, how far that misses it, and its words."""
