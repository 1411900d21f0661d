"""Compute only the places that are read: a class token is one of 197, and the last layer answers for it alone.

A slice that all readers of a value agree on is taken of what the value is computed from, as far up as each place
is computed from itself alone. The answers stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from shrink.graph.clean import tidy
from shrink.graph.edit import call
from shrink.graph.shapes import annotate_shapes, input_shape
from shrink.prune import rules_compute as compute
from shrink.prune.rules import RULES
from shrink.prune.trace import argument, shape_of

aten = torch.ops.aten
Cut = tuple[int, int, int]
"""Axis, first place, and the place after the last."""
Inputs = dict[int, int]
"""Position of an argument -> its axis that is cut."""


def drop_unread(graph_module: fx.GraphModule) -> bool:
    """Change the graph in place; whether anything was found."""
    found = False
    for node in reversed(list(graph_module.graph.nodes)):
        if node.target is aten.select.int:
            _as_slice(node)
        cut = _agreed(node)
        inputs = None if cut is None else _inputs(node, cut[0])
        if cut is not None and inputs:
            _move_up(node, cut, inputs)
            found = True
    if found:
        tidy(graph_module)
        annotate_shapes(graph_module, torch.zeros(input_shape(graph_module)))
    return found


def _as_slice(node: fx.Node) -> None:
    """A place that is picked is a slice of one, of which the only place is picked."""
    source: Any
    source, axis, index = node.args
    rank, size = len(shape_of(source)), shape_of(source)[axis]  # type: ignore[index]
    if size > 1:
        first = int(index) % size  # type: ignore[arg-type]
        axis = int(axis) % rank  # type: ignore[arg-type]
        node.args = (_slice(node, source, (axis, first, first + 1)), axis, 0)


def _slice(before: fx.Node, source: fx.Node, cut: Cut) -> fx.Node:
    return call(before, aten.slice.Tensor, source, *cut)


def _agreed(node: fx.Node) -> Cut | None:
    """The slice that all readers of a value take."""
    cuts = {_cut(user, node) for user in node.users}
    return cuts.pop() if node.op == "call_function" and len(cuts) == 1 else None


def _cut(user: fx.Node, node: fx.Node) -> Cut | None:
    if user.target is not aten.slice.Tensor or argument(user, 4, "step", 1) != 1:
        return None
    axis = argument(user, 1, "dim", 0) % len(shape_of(node))
    size = shape_of(node)[axis]
    start, stop = argument(user, 2, "start"), argument(user, 3, "end")
    first, last, _ = slice(start, stop).indices(size)
    return (axis, first, last) if last - first < size else None


def _move_up(node: fx.Node, cut: Cut, inputs: Inputs) -> None:
    for position, axis in inputs.items():
        node.update_arg(position, _slice(node, node.args[position], (axis, *cut[1:])))  # type: ignore[arg-type]
    shape = list(shape_of(node))
    shape[cut[0]] = cut[2] - cut[1]
    node.meta["shape"] = tuple(shape)
    if node.target is aten.reshape.default:
        node.update_arg(1, shape)
    for user in list(node.users):
        user.replace_all_uses_with(node)
        node.graph.erase_node(user)


def _inputs(node: fx.Node, axis: int) -> Inputs | None:
    """Which arguments to cut, and where, to get only some places of a value; None if each needs all."""
    if RULES.get(node.target) is compute.elementwise:
        return _elementwise(node, axis)
    rule = MOVES.get(node.target)
    return None if rule is None else rule(node, axis)


def _elementwise(node: fx.Node, axis: int) -> Inputs:
    back, size = len(shape_of(node)) - axis, shape_of(node)[axis]
    return {
        i: len(shape_of(source)) - back
        for i, source in enumerate(node.args)
        if isinstance(source, fx.Node) and len(shape_of(source)) >= back and shape_of(source)[-back] == size
    }


def _all_but_last(node: fx.Node, axis: int) -> Inputs | None:
    return {0: axis} if axis < len(shape_of(node)) - 1 else None


def _layer_norm(node: fx.Node, axis: int) -> Inputs | None:
    return {0: axis} if axis < len(shape_of(node)) - len(argument(node, 1, "normalized_shape")) else None


def _softmax(node: fx.Node, axis: int) -> Inputs | None:
    return {0: axis} if axis != argument(node, 1, "dim") % len(shape_of(node)) else None


def _queries(node: fx.Node, axis: int) -> Inputs | None:
    """Each query is answered for itself; a mask has a row for each."""
    plain = len(node.args) == 3 and not {"attn_mask", "is_causal"} & node.kwargs.keys()
    return {0: axis} if plain and axis == len(shape_of(node)) - 2 else None


def _rows(node: fx.Node, axis: int) -> Inputs | None:
    return {0: axis} if axis == len(shape_of(node)) - 2 and len(shape_of(node.args[0])) > 1 else None


def _permute(node: fx.Node, axis: int) -> Inputs | None:
    order: list[int] = node.args[1]  # type: ignore[assignment]
    return {0: order[axis] % len(order)}


def _transpose(node: fx.Node, axis: int) -> Inputs | None:
    a, b = (int(given) % len(shape_of(node)) for given in node.args[1:3])  # type: ignore[arg-type]
    return {0: {a: b, b: a}.get(axis, axis)}


def _reshape(node: fx.Node, axis: int) -> Inputs | None:
    """Where the dimensions up to this one stay as they are."""
    before, after = shape_of(node.args[0])[: axis + 1], shape_of(node)[: axis + 1]
    return {0: axis} if before == after else None


MOVES: dict[object, Callable[[fx.Node, int], Inputs | None]] = {
    aten.linear.default: _all_but_last,
    aten.layer_norm.default: _layer_norm,
    aten.softmax.int: _softmax,
    aten._softmax.default: _softmax,
    aten.scaled_dot_product_attention.default: _queries,
    aten.matmul.default: _rows,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.reshape.default: _reshape,
}
"""Ops that give some places of their output for some places of an input."""
