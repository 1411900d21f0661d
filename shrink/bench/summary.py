"""From raw samples to the numbers of a result."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri

from shrink.bench.latency import Samples, ratio
from shrink.bench.result import Accuracy, RatioToFloat, Times

DIGITS = 4
HALF_ALPHA = 0.025


def times(samples_ms: Sequence[Sequence[float]]) -> Times | None:
    """Of all repetitions together; None without any."""
    if not any(samples_ms):
        return None
    taken = np.concatenate([np.asarray(repeat, np.float64) for repeat in samples_ms])
    low, high = quantile_interval(np.sort(taken), 0.9)
    third = max(len(taken) // 3, 1)
    numbers = {
        "seconds": taken.sum() / 1000,
        "min": taken.min(),
        "p50": np.median(taken),
        "p90": np.percentile(taken, 90),
        "p99": np.percentile(taken, 99),
        "max": taken.max(),
        "mean": taken.mean(),
        "std": taken.std(ddof=1) if len(taken) > 1 else 0.0,
        "p90_low": low,
        "p90_high": high,
        "retention": np.median(taken[:third]) / np.median(taken[-third:]),
    }
    return Times(
        n=len(taken),
        repeats_p50=tuple(round(float(np.median(repeat)), DIGITS) for repeat in samples_ms),
        **{name: round(float(value), DIGITS) for name, value in numbers.items()},
    )


def quantile_interval(ordered: NDArray[np.float64], q: float) -> tuple[float, float]:
    """95 % interval of a quantile from order statistics: no assumption of how the values are spread.

    Args:
        ordered: ascending, shape (n,), n >= 1.
        q: 0 < q < 1.
    """
    n = len(ordered)
    below = bdtr(np.arange(n), n, q)  # chance that at most k values lie below the quantile
    low = max(int(np.count_nonzero(below <= HALF_ALPHA)) - 1, 0)
    high = min(int(np.count_nonzero(below < 1 - HALF_ALPHA)) + 1, n - 1)
    return float(ordered[low]), float(ordered[high])


def versus(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> RatioToFloat | None:
    """Time of `a` over time of `b`, of the rounds they share."""
    first, second = (tuple(x for repeat in side for x in repeat) for side in (a, b))
    if not first or len(first) != len(second):
        return None
    found = ratio(Samples(first), Samples(second))
    return RatioToFloat(median=found.median, low=found.low, high=found.high)


def accuracy(answers: Sequence[int], labels: Sequence[int]) -> Accuracy:
    """Top-1 of the images that could be read; an answer of -1 is one that could not."""
    read = [(answer, label) for answer, label in zip(answers, labels, strict=True) if answer >= 0]
    right = sum(answer == label for answer, label in read)
    low, high = wilson(right, len(read))
    return Accuracy(images=len(read), right=right, top1=right / len(read) if read else 0.0, low=low, high=high)


def wilson(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share. E. B. Wilson, J. Am. Stat. Assoc. 22, 209-212 (1927)."""
    if not n:
        return 0.0, 1.0
    z = float(ndtri((1 + confidence) / 2))
    p, scale = right / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    return max(centre - half, 0.0), min(centre + half, 1.0)
