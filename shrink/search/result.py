"""What one trial found: its files, and the worst of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec

from shrink.search.goal import Figures
from shrink.verify.statistics import paired_interval

ONE_ERROR = 0.68  # two-sided: the upper end is one standard error above what was measured


class Clocked(msgspec.Struct, frozen=True, kw_only=True):
    """Latency on one board."""

    board: str
    median_ms: Annotated[float, msgspec.Meta(gt=0)]
    ratio: Annotated[float, msgspec.Meta(gt=0)]  # to the file of the whole float model, in turns with it


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """Size and time of one file of a point."""

    target: str
    sha256: str
    size_bytes: Annotated[int, msgspec.Meta(gt=0)]
    size_ratio: Annotated[float, msgspec.Meta(gt=0)]  # to the file of the whole float model
    clocked: tuple[Clocked, ...]


class File(Weighed, frozen=True, kw_only=True):
    """The same with its answers."""

    images: Annotated[int, msgspec.Meta(gt=0)]
    lost: int  # of them, that the whole float model answers rightly and the file does not
    won: int

    def __post_init__(self) -> None:
        if min(self.lost, self.won) < 0 or self.lost + self.won > self.images:
            raise ValueError(f"{self.lost} lost and {self.won} won of {self.images} images is not a count of flips")

    @property
    def drop(self) -> float:
        """Points of top-1, as measured."""
        return 100 * (self.lost - self.won) / self.images

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Of the drop, in points."""
        low, high = paired_interval(self.lost, self.won, self.images, confidence=confidence)
        return 100 * low, 100 * high


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A point that was made and judged."""

    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1)]
    macs: int
    parameters: int

    @property
    def figures(self) -> Figures:
        """The worst of all files on all boards."""
        return msgspec.structs.replace(
            weight(self.files),
            drop=max(file.drop for file in self.files),
            drop_likely=max(file.interval(ONE_ERROR)[1] for file in self.files),
        )


def weight(files: Sequence[Weighed]) -> Figures:
    """The largest size and the longest time of all files on all boards; nothing of their answers."""
    clocked = [found for file in files for found in file.clocked]
    return Figures(
        size_mb=max(file.size_bytes for file in files) / 1e6,
        size_ratio=max(file.size_ratio for file in files),
        latency_ms=max((found.median_ms for found in clocked), default=None),
        latency_ratio=max((found.ratio for found in clocked), default=None),
    )


def cost(figures: Figures) -> float:
    """What is made as small as can be once every limit is kept: time x size, or size where nothing was timed."""
    assert figures.size_mb is not None
    return figures.size_mb * (1.0 if figures.latency_ms is None else figures.latency_ms)


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is nowhere larger than `b`, and somewhere smaller."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def values(figures: Figures) -> tuple[float, float, float]:
    """What a front is made of: MB, ms (0 where nothing was timed) and points lost."""
    assert figures.size_mb is not None and figures.drop is not None
    found = (figures.size_mb, figures.latency_ms or 0.0, figures.drop)
    assert all(map(math.isfinite, found))
    return found
