"""Fit what is left of each layer, in order, so that it gives what the whole model gave.

A layer of the smaller graph reads what the smaller graph computes, errors of earlier layers included, and is
fitted by least squares to what the same layer of the whole graph gave. Where only an addition reads it, the
sum is what should come out right, so that each block also repairs what the shortcut brings. Where the blocks
after a sum are gone, it is fitted to what the sum after them was. Places that the answers depend on count for more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from shrink.graph.batch import Walk
from shrink.graph.edit import add_constant, is_constant
from shrink.prune.blocks import Block
from shrink.prune.choose import Choice
from shrink.prune.groups import Coupling
from shrink.prune.influence import Reference
from shrink.prune.moments import fits, flat_weight, input_rows, output_rows
from shrink.prune.remove import put
from shrink.prune.trace import shape_of

aten = torch.ops.aten
RIDGE = 1e-3  # pull towards the weights that were cut out, in units of the inputs' mean square


def repair(reference: Reference, small: fx.GraphModule, coupling: Coupling, choice: Choice) -> None:
    """Fit the layers of `small` in place.

    Args:
        reference: the graph that `small` was cut out of, and the images; both graphs hold their values for all of
            them at once.
    """
    whole, per_image = reference.whole, reference.per_image
    goals = _goals(whole, small, choice)
    weights = reference.influence({goal.stands_for: layer for layer, goal in goals.items()})
    ahead = _Ahead(whole, reference.images, Counter(goal.stands_for for goal in goals.values()))
    walk = Walk(small, reference.images)
    for node in walk.calls():
        if node in goals:
            goal = goals[node]
            wanted = kept(ahead.take(goal.stands_for), ahead.nodes[goal.stands_for], coupling, choice.dead)
            if goal.other is not None:
                wanted = wanted - walk.values[goal.other]
            rows = _Rows(
                input_rows(node, walk.read(node.args[0]), per_image),
                output_rows(node, wanted, per_image),
                weights[goal.stands_for].reshape(-1, 1),
            )
            _fit(small, node, rows)
        walk.step(node)


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a layer of the smaller graph should give: a value of the whole graph, less what is added to the layer."""

    stands_for: str  # name of a node of the whole graph
    other: fx.Node | None = None  # of the smaller graph, computed before the layer


def _goals(whole: fx.GraphModule, small: fx.GraphModule, choice: Choice) -> dict[fx.Node, _Goal]:
    lasting = lasting_sums(whole, choice.blocks)
    place = {node: i for i, node in enumerate(small.graph.nodes)}
    found = {}
    for node in filter(fits, small.graph.nodes):
        found[node] = _Goal(node.name)
        readers: list[Any] = list(node.users)
        if len(readers) == 1 and readers[0].target is aten.add.Tensor:
            others = [source for source in readers[0].all_input_nodes if source is not node]
            if others and place[others[0]] < place[node] and shape_of(others[0]) == shape_of(node):
                found[node] = _Goal(lasting.get(readers[0].name, readers[0].name), others[0])
    return found


def lasting_sums(whole: fx.GraphModule, blocks: Sequence[Block]) -> Mapping[str, str]:
    """Sum before blocks that are gone -> the sum after them, which it stands for; by names of nodes of `whole`."""
    nodes = {node.name: node for node in whole.graph.nodes}
    found: dict[str, str] = {}
    for block in reversed(blocks):
        before: Any = nodes[block.shortcut]
        if before.target is aten.relu.default and all(u.target is aten.relu.default for u in nodes[block.total].users):
            before = before.args[0]
        if before.target is aten.add.Tensor:
            found[before.name] = found.get(block.total, block.total)
    return found


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds two values of one shape, none of them a constant."""
    sources = node.all_input_nodes
    return (
        node.target is aten.add.Tensor
        and len(sources) == 2
        and not any(map(is_constant, sources))
        and shape_of(sources[0]) == shape_of(sources[1])
    )


def kept(value: Tensor, node: fx.Node, coupling: Coupling, dead: NDArray[np.bool_]) -> Tensor:
    """The part of a value (N, ...) of the whole graph that the smaller graph has, too."""
    for axis in range(len(shape_of(node))):
        alive = coupling.alive((node.name, axis), dead)
        if alive is not None:
            value = value.index_select(axis + 1, torch.from_numpy(np.flatnonzero(alive)))
    return value


class _Ahead:
    """Values of the whole graph, of which later ones may be asked for before earlier ones."""

    def __init__(self, whole: fx.GraphModule, images: Tensor, wanted: Mapping[str, int]) -> None:
        self._walk = Walk(whole, images)
        self._calls = iter(self._walk.calls())
        self._wanted = dict(wanted)  # how often each will be asked for
        self._held: dict[str, Tensor] = {}
        self.nodes = {node.name: node for node in whole.graph.nodes}

    def take(self, name: str) -> Tensor:
        """(N, 1, ...) what a call gives, by its name."""
        while name not in self._held:
            node = next(self._calls)
            value = self._walk.step(node)
            if node.name in self._wanted:
                self._held[node.name] = value
        self._wanted[name] -= 1
        return self._held[name] if self._wanted[name] else self._held.pop(name)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a layer reads and should give, place by place."""

    given: Tensor  # (R, K + 1)
    wanted: Tensor  # (R, O)
    weights: Tensor  # (R, 1), mean 1

    def effective(self) -> float:
        """As many rows of one weight would say as much (Kish)."""
        return float(self.weights.sum().square() / self.weights.square().sum())


def _fit(small: fx.GraphModule, node: fx.Node, rows: _Rows) -> None:
    before = flat_weight(small, node)
    left = rows.given * rows.weights / len(rows.given)
    second = (left.T @ rows.given).to(torch.float64)
    cross = (left.T @ (rows.wanted - rows.given @ before.T)).to(torch.float64)
    ridge = max(RIDGE, len(second) / (len(second) + rows.effective()))  # few rows per unknown: near what was cut
    pull = ridge * second.diagonal()[:-1].mean().clamp_min(1e-12) * torch.eye(len(second), dtype=torch.float64)
    pull[-1, -1] = 1e-9  # the bias is free
    after = before + torch.linalg.solve(second + pull, cross).T.to(torch.float32)
    put(small, str(node.args[1].target), after[:, :-1].reshape(shape_of(node.args[1])).contiguous())  # type: ignore[union-attr]
    bias = node.args[2] if len(node.args) > 2 else None
    if bias is not None:
        put(small, str(bias.target), after[:, -1].contiguous())  # type: ignore[union-attr]
    else:
        with small.graph.inserting_before(node):
            added = add_constant(small, f"{node.name}_bias", after[:, -1].contiguous())
        node.args = (*node.args[:2], added, *node.args[3:])
