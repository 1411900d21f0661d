"""Sums and products of two values that are viewed alike, computed before they are viewed.

The TFLite converter does so, too, but on codes it gives the result those of the first operand, and then refuses the
file: so ended an export of FishNet (Sun et al. 2018), which sums two selections of one value and reads the sum twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from shrink.graph.edit import call, replace
from shrink.graph.shapes import shape_of

aten = torch.ops.aten
BINARY = frozenset({
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.minimum.default,
})  # fmt: skip
SAME_NUMBERS = frozenset({
    aten.reshape.default, aten.flatten.using_ints, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default,
})  # fmt: skip
"""Views of all numbers in their order."""


def view_last(graph_module: fx.GraphModule) -> int:
    """Put reshapes and selections of both operands, from one shape to one other, behind the op; how many had such."""
    count = 0
    for node in [node for node in graph_module.graph.nodes if node.target in BINARY]:
        operands: tuple[Any, ...] = node.args
        if not all(isinstance(one, fx.Node) for one in operands):
            continue
        a, b = (_before(one) for one in operands)
        if a is None or a != b or shape_of(operands[0]) != shape_of(operands[1]):
            continue
        found = call(node, node.target, *(_value(node, one) for one in operands), **node.kwargs)
        replace(node, call(node, aten.reshape.default, found, shape_of(node)))
        count += 1
    return count


def _before(node: fx.Node) -> list[int] | None:
    """The shape before a view, with the axis of a selection; None if it is none."""
    given: tuple[Any, ...] = node.args
    if node.target in SAME_NUMBERS:
        return shape_of(given[0])
    if node.target is not aten.select.int:
        return None
    shape = shape_of(given[0])
    shape[given[1]] = 1
    return shape


def _value(at: fx.Node, view: fx.Node) -> fx.Node:
    """What is viewed; of a selection, with its axis."""
    given: tuple[Any, ...] = view.args
    source: fx.Node = given[0]
    if view.target is not aten.select.int:
        return source
    axis = given[1] % len(shape_of(source))
    place = given[2] % shape_of(source)[axis]
    return call(at, aten.slice.Tensor, source, axis, place, place + 1)
