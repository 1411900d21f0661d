"""How many units each group loses: the cheapest error per multiply-accumulate saved goes first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import fx

from shrink.prune.budget import Budget, Measure
from shrink.prune.groups import Coupling, Group
from shrink.prune.surgeon import Curve

LEAST_LEFT = 1 / 8  # of a group's units; a layer that is nearly gone cannot be repaired


def step_of(coupling: Coupling, group: Group, multiple_of: int) -> int:
    """Units that are removed at once, so that sizes stay multiples of `multiple_of` or of an eighth of the group."""
    each = min(
        (counts.min() for counts in _per_unit(coupling, group)), default=1
    )  # a head's width counts for its channels
    largest = 1 << max(0, (len(group.units) // 8).bit_length() - 1)  # a power of two
    return max(1, min(multiple_of // int(each), largest))


def _per_unit(coupling: Coupling, group: Group) -> list[NDArray[np.int64]]:
    found = []
    for family in coupling.families:
        for labels in family.values():
            mine = labels[np.isin(labels, group.units)]
            if len(mine):
                found.append(np.unique(mine, return_counts=True)[1])
    return found


def choose(
    graph_module: fx.GraphModule,
    coupling: Coupling,
    curves: Mapping[Group, Curve],
    *,
    measure: Measure,
    ratio: float,
    multiple_of: int,
) -> tuple[NDArray[np.bool_], float]:
    """Greedy: as long as the budget is exceeded, the group whose next step costs least per saving loses it.

    Args:
        curves: the groups that may lose units.
        measure: what is to shrink.
        ratio: what it is to become, as a share of what it is; 0..1.
        multiple_of: see `step_of`.

    Returns:
        (units,) true for what is removed, and the share that is left: above `ratio` if that cannot be reached.
    """
    budget = Budget(graph_module, coupling, measure)
    groups = [group for group in coupling.groups if group in curves]
    number = {group: i for i, group in enumerate(coupling.groups)}
    steps = {group: step_of(coupling, group, multiple_of) for group in groups}
    slopes = {group: curves[group].cost for group in groups}
    removed = np.zeros(len(coupling.groups), np.int64)
    full = budget.cost(removed)
    while budget.cost(removed) > ratio * full:
        saving = budget.saving(removed)
        best, least = None, np.inf
        for group in groups:
            i, count = number[group], len(group.units)
            step = (count - removed[i]) % steps[group] or steps[group]
            after = removed[i] + step
            if count - after < max(steps[group], count * LEAST_LEFT, 1) or saving[i] <= 0:
                continue
            price = (slopes[group][after] - slopes[group][removed[i]]) / (step * saving[i])
            if price < least:
                best, least, size = i, price, step
        if best is None:
            break
        removed[best] += size
    dead = np.zeros(coupling.units, bool)
    for group in groups:
        dead[group.units[curves[group].order[: removed[number[group]]]]] = True
    return dead, budget.cost(removed) / full
