"""Do the answers still look like the first ones? A camera that was moved, or a new season, shows here first.

The population stability index compares two histograms: the sum over bins of (p - q) ln(p / q). Below 0.1 nothing
changed, above 0.25 something did. A bin is a label (the 32nd stands for all further ones) with a quarter of the range
of confidence; the baseline is the first WINDOW answers since the start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WINDOW = 2000
ALARM = 0.25
MAX_LABELS = 32
STEPS = 4  # bins of confidence per label


class Drift:
    """Two histograms of fixed size."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._baseline: list[int] | None = None
        self._counts = [0] * (MAX_LABELS * STEPS)
        self._n = 0
        self.psi: float | None = None  # of the last whole window; None: there is none yet

    def add(self, index: int, confidence: float) -> None:
        """One answer: the best label's place and its confidence, 0..1."""
        self._counts[min(index, MAX_LABELS - 1) * STEPS + min(int(confidence * STEPS), STEPS - 1)] += 1
        self._n += 1
        if self._n < self._window:
            return
        if self._baseline is None:
            self._baseline = self._counts
        else:
            self.psi = psi(self._baseline, self._counts)
        self._counts, self._n = [0] * len(self._counts), 0


def psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Population stability index of two histograms; an empty bin counts as half an entry."""
    pairs = [(max(e, 0.5), max(a, 0.5)) for e, a in zip(expected, actual, strict=True) if e or a]
    total_e, total_a = sum(e for e, _ in pairs), sum(a for _, a in pairs)
    return sum((a / total_a - e / total_e) * math.log((a / total_a) / (e / total_e)) for e, a in pairs)
