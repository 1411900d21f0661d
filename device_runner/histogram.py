"""Counts in fixed buckets: months of latencies in a hundred bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Histogram:
    """How many values fell at or below each bound, as Prometheus counts them."""

    def __init__(self, bounds: Sequence[float] = LATENCY_S) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.count += 1

    def cumulative(self) -> list[int]:
        """One number per bound: values at or below it."""
        sums, running = [], 0
        for count in self._counts[:-1]:
            running += count
            sums.append(running)
        return sums
