"""Selections of constant places along an axis, which XNNPACK does not take: the graph is cut in two there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.functional import one_hot

from shrink.graph.edit import add_constant, call, constant, is_constant

aten = torch.ops.aten
MOST_PARTS = 5
"""Of a concatenation: XNNPACK takes no longer one, and the graph is cut in two there."""
MOST_WEIGHTS = 2**18
"""Of a linear that moves places, or takes means of them."""


def select(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Numbers at constant places, or all of an axis in reverse, as slices or as products with zeros and ones."""
    found: Any = node.args[0]
    axes = list(_places(graph_module, node))
    if not axes or node.meta["dtype"] is not torch.float32 or not all(_can(found, *each) for each in axes):
        return None
    for axis, places in axes:
        found = taken(node, found, axis, places)
    return found  # type: ignore[no-any-return]


def _places(graph_module: fx.GraphModule, node: fx.Node) -> Iterator[tuple[int, Tensor]]:
    """Axes along which constant places are taken, one after the other; none if something else is taken."""
    args: tuple[Any, ...] = node.args
    shape = args[0].meta["shape"]
    if node.target is aten.flip.default:
        yield from ((axis % len(shape), torch.arange(shape[axis] - 1, -1, -1)) for axis in args[1])
        return
    if node.target is aten.index_select.default:
        axis, index = args[1] % len(shape), args[2]
    else:
        given = [(axis, index) for axis, index in enumerate(args[1]) if index is not None]
        axis, index = given[0] if len(given) == 1 else (0, None)
    if index is not None and is_constant(index):
        places = constant(graph_module, index)
        if places.dim() == 1 and places.dtype is not torch.bool:
            yield axis, places.long() % shape[axis]


def _can(source: fx.Node, axis: int, places: Tensor) -> bool:
    return axis > 0 and len(places) > 0 and are_few(places, source.meta["shape"][axis])


def are_few(places: Tensor, size: int) -> bool:
    """Whether so many places of an axis of that size are to be written by `taken`."""
    return len(_stretches(places)) <= MOST_PARTS or len(places) * size <= MOST_WEIGHTS


def taken(node: fx.Node, source: fx.Node, axis: int, places: Tensor) -> fx.Node:
    """The numbers at those places of an axis, computed before a node."""
    stretches, shape = _stretches(places), source.meta["shape"]
    if len(stretches) <= MOST_PARTS:
        return joined(node, source, axis, stretches)
    module = node.graph.owning_module
    assert module is not None
    with node.graph.inserting_before(node):
        weights = add_constant(module, f"{node.name}_places", one_hot(places, shape[axis]).float())
    chosen_last = call(node, aten.linear.default, call(node, aten.transpose.int, source, axis, -1), weights)
    return call(node, aten.transpose.int, chosen_last, axis, -1)


def joined(node: fx.Node, source: fx.Node, axis: int, stretches: list[tuple[int, int]]) -> fx.Node:
    """Those stretches of an axis, (start, end) each, one after the other, computed before a node."""
    parts = [call(node, aten.slice.Tensor, source, axis, start, end) for start, end in stretches]
    return call(node, aten.cat.default, parts, axis) if len(parts) > 1 else parts[0]


def _stretches(places: Tensor) -> list[tuple[int, int]]:
    """(start, end) of what lies side by side."""
    found: list[tuple[int, int]] = []
    for place in places.tolist():
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found
