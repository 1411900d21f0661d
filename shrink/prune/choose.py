"""How many units each group loses, and which blocks go: the cheapest error per multiply-accumulate saved goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import fx

from shrink.prune.blocks import Block, private
from shrink.prune.budget import Budget, Measure
from shrink.prune.groups import Coupling, Group
from shrink.prune.surgeon import Curve

MOST_BLOCKS = 1 / 2  # of the blocks; what one costs is measured with the others there
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


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What may go, and what that costs, in one unit."""

    curves: Mapping[Group, Curve]
    blocks: Mapping[Block, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What goes."""

    dead: NDArray[np.bool_]  # (units,)
    blocks: tuple[Block, ...]
    left: float  # share of the cost; above what was asked for if that cannot be reached


def choose(
    graph_module: fx.GraphModule,
    coupling: Coupling,
    candidates: Candidates,
    *,
    measure: Measure,
    ratio: float,
    multiple_of: int,
) -> Choice:
    """Greedy: as long as the budget is exceeded, the step that costs least per saving is taken.

    Args:
        candidates: the groups that may lose units, and the blocks that may go.
        measure: what is to shrink. Multiply-accumulates are asked for and time is meant: what goes is priced by the
            time that it saves, or a depthwise convolution, which multiplies little but slowly, would stay.
        ratio: what it is to become, as a share of what it is; 0..1.
        multiple_of: see `step_of`.
    """
    budget = Budget(graph_module, coupling, measure)
    prices = Budget(graph_module, coupling, "work") if measure == "macs" else budget
    state = _State(graph_module, coupling, candidates, budget, prices, multiple_of)
    full = state.cost()
    while (needed := state.cost() - ratio * full) > 0:
        units, block = state.cheapest_units(), state.cheapest_block(needed)
        if block is not None and (units is None or block[0] < units[0]):
            state.drop(block[1])
        elif units is not None:
            state.removed[units[1]] += units[2]
        else:
            break
    return state.chosen(full)


class _State:
    """How much is gone while choosing."""

    def __init__(
        self,
        graph_module: fx.GraphModule,
        coupling: Coupling,
        candidates: Candidates,
        budget: Budget,
        prices: Budget,
        multiple_of: int,
    ) -> None:
        self._coupling, self._candidates, self._budget, self._prices = coupling, candidates, budget, prices
        self._number = {group: i for i, group in enumerate(coupling.groups)}
        helps = budget.saving(np.zeros(len(coupling.groups), np.int64)) > 0
        able = (group for group in candidates.curves if helps[self._number[group]])
        self._steps = {group: step_of(coupling, group, multiple_of) for group in able}
        self._inside = {block: private(candidates.curves, graph_module, block) for block in candidates.blocks}
        self.removed = np.zeros(len(coupling.groups), np.int64)
        self._blocks: list[Block] = []
        self._gone: frozenset[str] = frozenset()

    def cost(self) -> float:
        return self._budget.cost(self.removed, self._gone)

    def cheapest_units(self) -> tuple[float, int, int] | None:
        """Price per saving, number of the group, and how many of its units are the next step."""
        saving, best = self._prices.saving(self.removed, self._gone), None
        for group, step in self._steps.items():
            i, count = self._number[group], len(group.units)
            size = (count - self.removed[i]) % step or step
            after = self.removed[i] + size
            if count - after < max(step, count * LEAST_LEFT, 1) or saving[i] <= 0:  # 0: it is gone with a block
                continue
            slope = self._candidates.curves[group].cost
            price = float(slope[after] - slope[self.removed[i]]) / (size * saving[i])
            if best is None or price < best[0]:
                best = price, i, int(size)
        return best

    def cheapest_block(self, needed: float) -> tuple[float, Block] | None:
        """Price per saving, as far as that is needed, and the block; what its units have cost already comes back."""
        best = None
        for block, cost in self._candidates.blocks.items():
            if block in self._blocks or len(self._blocks) >= MOST_BLOCKS * len(self._candidates.blocks):
                continue
            gone = self._gone | block.inside
            saved = self.cost() - self._budget.cost(self.removed, gone)
            if saved > 0:
                worth = self._prices.cost(self.removed, self._gone) - self._prices.cost(self.removed, gone)
                price = max(cost - self._spent(block), 0.0) / (worth * min(1.0, needed / saved))
                best = (price, block) if best is None or price < best[0] else best
        return best

    def drop(self, block: Block) -> None:
        """Take a block out, and let its units be: they go with it."""
        self._blocks.append(block)
        self._gone |= block.inside
        for group in self._inside[block]:
            self.removed[self._number[group]] = 0

    def chosen(self, full: float) -> Choice:
        dead = np.zeros(self._coupling.units, bool)
        for group, curve in self._candidates.curves.items():
            dead[group.units[curve.order[: self.removed[self._number[group]]]]] = True
        order = list(self._candidates.blocks)
        return Choice(dead, tuple(sorted(self._blocks, key=order.index)), self.cost() / full)

    def _spent(self, block: Block) -> float:
        curves = self._candidates.curves
        return float(sum(curves[group].cost[self.removed[self._number[group]]] for group in self._inside[block]))
