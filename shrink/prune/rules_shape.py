"""Rules of the ops that only move elements: reshapes, permutations, parts and concatenations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from shrink.graph.shapes import order_of
from shrink.prune.trace import Dims, Trace, argument, at, shape_of
from shrink.prune.units import STAYS

aten = torch.ops.aten
RESHAPES = {
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.unsqueeze.default,
}
"""Ops that keep the order of the elements; the shapes say the rest."""


def permute(trace: Trace, node: fx.Node) -> Dims:
    return [trace.of(node.args[0])[axis] for axis in argument(node, 1, "dims")]


def transpose(trace: Trace, node: fx.Node) -> Dims:
    x = list(trace.of(node.args[0]))
    a, b = argument(node, 1, "dim0"), argument(node, 2, "dim1")
    x[a], x[b] = x[b], x[a]
    return x


def reshape(trace: Trace, node: fx.Node) -> Dims:
    """Any change of shape that keeps the order: each run of dimensions with equal products on its own."""
    x, before, after = trace.of(node.args[0]), shape_of(node.args[0]), shape_of(node)
    out: Dims = [None] * len(after)
    for ins, outs in runs(before, after):
        _regroup(trace, node, x, ins, outs, out)
    return out


def runs(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of dimensions, of size above 1, that have the same product on both sides.

    >>> runs((2, 12, 5), (2, 3, 4, 5))
    [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    found: list[tuple[list[int], list[int]]] = []
    while left or right:
        ins, outs = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(before[i] for i in ins)) != (b := math.prod(after[i] for i in outs)):
            (ins if a < b else outs).append((left if a < b else right).pop(0))
        found.append((ins, outs))
    return found


def _regroup(trace: Trace, node: fx.Node, x: Dims, ins: list[int], outs: list[int], out: Dims) -> None:
    """Labels of the output dimensions `outs`, which hold the elements of the input dimensions `ins`."""
    labelled = [axis for axis in ins if x[axis] is not None]
    if len(labelled) > 1:
        for axis in labelled:
            trace.units.freeze(x[axis], f"{at(node)} joins it with other channels")
        return
    if not labelled:
        return
    before, after = [shape_of(node.args[0])[i] for i in ins], [shape_of(node)[i] for i in outs]
    place = [1] * len(ins)
    place[ins.index(labelled[0])] = -1
    labels: Any = x[labelled[0]]
    elements = np.broadcast_to(labels.reshape(place), before).reshape(after)
    axis = _split_axis(trace, node, elements, outs)
    out[outs[axis]] = trace.units.merge_rows(rows(elements, axis), f"{at(node)} joins it with what must stay")


def _split_axis(trace: Trace, node: fx.Node, elements: NDArray[np.int64], outs: list[int]) -> int:
    """Which axis loses coordinates: the one on which the label alone depends, else as the family says."""
    for axis in range(elements.ndim):
        table = rows(elements, axis)
        if (table == table[:, :1]).all():
            return axis
    outer = elements.ndim - 2
    return elements.ndim - 1 if trace.family == "inner" or picked(node, outs[outer]) else outer


def picked(node: fx.Node, axis: int) -> bool:
    """Whether coordinates of an axis are taken by number, as query, key and value are out of three."""
    return any(_picks(user, node, axis % len(shape_of(node))) for user in node.users)


def _picks(user: fx.Node, node: fx.Node, axis: int) -> bool:
    rank = len(shape_of(node))
    if user.target in (aten.select.int, aten.unbind.int):
        given: Any = argument(user, 1, "dim", 0)
        return bool(given % rank == axis)
    if user.target in (aten.permute.default, aten.transpose.int):
        return picked(user, order_of(user).index(axis))
    if user.target in RESHAPES:
        ahead = [outs for ins, outs in runs(shape_of(node), shape_of(user)) if ins == [axis]]
        return bool(ahead) and len(ahead[0]) == 1 and picked(user, ahead[0][0])
    return False


def rows(elements: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """(..., size of axis, ...) -> (size of axis, all others)."""
    return np.moveaxis(elements, axis, 0).reshape(elements.shape[axis], -1)


def expand(trace: Trace, node: fx.Node) -> Dims:
    """A repeated value may be repeated less often."""
    x, before, after = trace.of(node.args[0]), shape_of(node.args[0]), shape_of(node)
    new = len(after) - len(before)
    return [
        x[axis - new] if axis >= new and before[axis - new] == size else trace.units.fresh(size) if size > 1 else None
        for axis, size in enumerate(after)
    ]


def slice_(trace: Trace, node: fx.Node) -> Dims:
    x, axis, part = list(trace.of(node.args[0])), *slice_of(node)
    labels = x[axis]
    if labels is not None and part.step != 1:
        trace.units.freeze(labels, f"{at(node)} takes every {part.step}th of them")
    x[axis] = None if labels is None or part.step != 1 else labels[part]
    return x


def slice_of(node: fx.Node) -> tuple[int, slice]:
    """Axis and range of a slice node, from 0 up to at most the size."""
    shape = shape_of(node.args[0])
    axis = int(argument(node, 1, "dim", 0)) % len(shape)
    start, stop, step = argument(node, 2, "start"), argument(node, 3, "end"), argument(node, 4, "step", 1)
    return axis, slice(*slice(start, stop, step).indices(shape[axis]))


def select(trace: Trace, node: fx.Node) -> Dims:
    x = list(trace.of(node.args[0]))
    trace.units.freeze(x.pop(argument(node, 1, "dim")), f"{at(node)} takes one of them by its number")
    return x


def split(trace: Trace, node: fx.Node) -> list[Dims]:
    """Parts of a tensor along one axis."""
    x, axis, bounds = trace.of(node.args[0]), *split_of(node)
    labels = x[axis]
    parts = [None if labels is None else labels[a:b] for a, b in pairwise(bounds)]
    return [[part if i == axis % len(x) else other for i, other in enumerate(x)] for part in parts]


def split_of(node: fx.Node) -> tuple[int, list[int]]:
    """Axis and bounds of the parts of a split or chunk node."""
    axis = int(argument(node, 2, "dim", 0))
    given: Any = node.args[1]
    size = shape_of(node.args[0])[axis]
    if isinstance(given, (list, tuple)):
        return axis, np.cumsum([0, *given]).tolist()
    step = -(-size // int(given)) if node.target is aten.chunk.default else int(given)
    return axis, [*range(0, size, step), size]


def unbind(trace: Trace, node: fx.Node) -> list[Dims]:
    x = list(trace.of(node.args[0]))
    axis = int(argument(node, 1, "dim", 0))
    trace.units.freeze(x.pop(axis), f"{at(node)} takes each of them by its number")
    return [x] * shape_of(node.args[0])[axis]


def item(trace: Trace, node: fx.Node) -> Any:
    return trace.dims[node.args[0]][node.args[1]]  # type: ignore[index]


def cat(trace: Trace, node: fx.Node) -> Dims:
    sources: Any = node.args[0]
    axis = int(argument(node, 1, "dim", 0)) % len(shape_of(node))
    out = list(trace.of(sources[0]))
    for source in sources[1:]:
        for i, labels in enumerate(trace.of(source)):
            if i != axis:
                trace.units.tie(out[i], labels, f"{at(node)} joins it with what must stay")
    parts = [(trace.of(source)[axis], shape_of(source)[axis]) for source in sources]
    if any(labels is not None for labels, _ in parts):
        whole = [np.full(size, STAYS) if labels is None else labels for labels, size in parts]
        out[axis] = np.concatenate(whole)
    else:
        out[axis] = None
    return out


def stack(trace: Trace, node: fx.Node) -> Dims:
    """Tensors side by side along a new axis, all places of which stay."""
    sources: Any = node.args[0]
    out = list(trace.of(sources[0]))
    for source in sources[1:]:
        for mine, other in zip(out, trace.of(source), strict=True):
            trace.units.tie(mine, other, f"{at(node)} joins it with what must stay")
    out.insert(int(argument(node, 1, "dim", 0)) % len(shape_of(node)), None)
    return out


def pad(trace: Trace, node: fx.Node) -> Dims:
    """Padded channels carry a constant: there may be fewer of them."""
    x, after = list(trace.of(node.args[0])), shape_of(node)
    for axis, (low, high) in pads_of(node).items():
        labels = x[axis]
        if low < 0 or high < 0:
            trace.units.freeze(labels, f"{at(node)} cuts some of them off")
            x[axis] = None
        elif labels is not None:
            x[axis] = np.concatenate([trace.units.fresh(low), labels, trace.units.fresh(high)])
        elif after[axis] > 1 and low + high and axis == 1:
            size = shape_of(node.args[0])[axis]
            x[axis] = np.concatenate([trace.units.fresh(low), np.full(size, STAYS), trace.units.fresh(high)])
    return x


def pads_of(node: fx.Node) -> dict[int, tuple[int, int]]:
    """Axis -> how many are put before and after."""
    given: Any = node.args[1]
    rank = len(shape_of(node))
    return {rank - 1 - i: (given[2 * i], given[2 * i + 1]) for i in range(len(given) // 2)}


def roll(trace: Trace, node: fx.Node) -> Dims:
    x = list(trace.of(node.args[0]))
    for axis in argument(node, 2, "dims", ()) or range(len(x)):
        trace.units.freeze(x[axis], f"{at(node)} turns them round")
        x[axis] = None
    return x
