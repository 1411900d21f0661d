"""The drop within each class, site or lighting, and which of many such drops are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shrink.verify.statistics import mcnemar_exact, paired_interval

Right = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GroupDrop:
    """Paired answers to the images of one group; rates are in 0..1."""

    group: int
    images: int
    top1_before: float
    top1_now: float
    lost: int
    won: int
    low: float  # 95 % interval of the drop, Tango's
    high: float
    p_value: float  # exact McNemar test, two-sided
    p_holm: float  # the same, for the number of groups looked at

    @property
    def drop(self) -> float:
        return (self.lost - self.won) / self.images


def by_group(before: Right, now: Right, group: NDArray[np.integer]) -> list[GroupDrop]:
    """The drop within every group that has images, the largest first.

    Args:
        before, now: whether each image is named rightly, shape (n,).
        group: number of the group of each image, shape (n,).
    """
    numbers = np.unique(group)
    counts = [_counts(before[group == one], now[group == one]) for one in numbers]
    p_values = [mcnemar_exact(lost, won) for lost, won, *_ in counts]
    adjusted = holm(p_values)
    found = [
        GroupDrop(int(one), n, right / n, (right - lost + won) / n, lost, won, *paired_interval(lost, won, n), p, h)
        for one, (lost, won, n, right), p, h in zip(numbers, counts, p_values, adjusted, strict=True)
    ]
    return sorted(found, key=lambda drop: (-drop.drop, drop.p_value, drop.group))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values for a family of tests: the chance of even one false alarm is at most the level.

    S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. of Statistics 6, 65-70 (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    raised = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, float)[order] * factors))
    adjusted = np.empty(len(order))
    adjusted[order] = raised
    return [float(p) for p in adjusted]


def _counts(before: Right, now: Right) -> tuple[int, int, int, int]:
    """(lost, won, images, right before)"""
    return int((before & ~now).sum()), int((~before & now).sum()), len(before), int(before.sum())
