"""Fit what is left of each layer, in order, so that it gives what the whole model gave.

A layer of the smaller graph reads what the smaller graph computes, errors of earlier layers included, and is
fitted by least squares to what the same layer of the whole graph gave. Where only an addition reads it, the
sum is what should come out right, so that each block also repairs what the shortcut brings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from shrink.graph.batch import Walk
from shrink.graph.edit import add_constant
from shrink.prune.groups import Coupling
from shrink.prune.moments import fits, flat_weight, input_rows, output_rows
from shrink.prune.remove import put
from shrink.prune.trace import shape_of

aten = torch.ops.aten
RIDGE = 1e-3  # pull towards the weights that were cut out, in units of the inputs' mean square


def repair(
    whole: fx.GraphModule,
    small: fx.GraphModule,
    coupling: Coupling,
    dead: NDArray[np.bool_],
    images: Tensor,
    *,
    per_image: int,
) -> None:
    """Fit the layers of `small` in place.

    Args:
        whole: the graph that `small` was cut out of.
        images: (N, C, H, W); both graphs hold their values for all of them at once.
        per_image: places of each image that enter a fit.
    """
    walks = Walk(whole, images), Walk(small, images)
    twins = {node.name: node for node in small.graph.nodes}
    for old in walks[0].calls():
        new = twins[old.name]
        value = walks[0].step(old)
        if fits(new):
            wanted = _kept(value, old, coupling, dead) + _shortcut(walks, old, new, coupling, dead)
            _fit(small, new, walks[1].read(new.args[0]), wanted, per_image)
        walks[1].step(new)


def _kept(value: Tensor, node: fx.Node, coupling: Coupling, dead: NDArray[np.bool_]) -> Tensor:
    """The part of a value of the whole graph that the smaller graph has, too."""
    for axis in range(len(shape_of(node))):
        alive = coupling.alive((node.name, axis), dead)
        if alive is not None:
            value = value.index_select(axis + 1, torch.from_numpy(np.flatnonzero(alive)))
    return value


def _shortcut(
    walks: tuple[Walk, Walk], old: fx.Node, new: fx.Node, coupling: Coupling, dead: NDArray[np.bool_]
) -> Tensor:
    """What the other term of the addition that reads a layer lacks; 0 if there is no such addition."""
    nothing = torch.zeros(())
    readers: list[tuple[fx.Node, fx.Node]] = list(zip(old.users, new.users, strict=True))
    if len(readers) != 1 or readers[0][0].target is not aten.add.Tensor:
        return nothing
    others: list[Any] = [next((s for s in add.all_input_nodes if s is not mine), None)
                         for add, mine in zip(readers[0], (old, new), strict=True)]  # fmt: skip
    if others[0] not in walks[0].values or others[1] not in walks[1].values:
        return nothing
    if shape_of(others[0]) != shape_of(old):
        return nothing
    lacks: Tensor = _kept(walks[0].values[others[0]], others[0], coupling, dead) - walks[1].values[others[1]]
    return lacks


def _fit(small: fx.GraphModule, node: fx.Node, x: Tensor, wanted: Tensor, per_image: int) -> None:
    rows, target = input_rows(node, x, per_image), output_rows(node, wanted, per_image)
    missing = target - rows @ (before := flat_weight(small, node)).T
    power = target.square().sum(1, keepdim=True)
    even = (power.mean() / (power + power.mean() + 1e-12)).sqrt()  # a few huge tokens must not decide for all
    rows, missing = rows * even, missing * even
    second = (rows.T @ rows / len(rows)).to(torch.float64)
    cross = (rows.T @ missing / len(rows)).to(torch.float64)
    ridge = max(RIDGE, len(second) / (len(second) + len(rows)))  # with few rows per unknown, stay near what was cut
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
