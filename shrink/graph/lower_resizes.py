"""Resizes that runtimes have no quick kernel for, as products with constant matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.edit import add_constant, call

aten = torch.ops.aten


def resize(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """A resize of images as a linear along the rows and one along the columns.

    litert-torch 0.10 writes a bicubic one as 16 gathers, which XNNPACK does not take, and one that filters against
    aliasing not at all. Both are linear, each axis for itself, and their weights add up to one.
    """
    args: tuple[Any, ...] = node.args
    found: fx.Node = args[0]
    for axis in (3, 2):  # columns first; the turn after each puts the other axis last
        with node.graph.inserting_before(node):
            weights = add_constant(graph_module, f"{node.name}_weight", _matrix(node, axis))
        found = call(node, aten.permute.default, call(node, aten.linear.default, found, weights), [0, 1, 3, 2])
    return found


def _matrix(node: fx.Node, axis: int) -> Tensor:
    """(wanted, size): what becomes of an image that is 1 at one place of the axis and 0 elsewhere.

    One image after the other, each of the size that is resized: PyTorch 2.13 filters along an axis otherwise where the
    other becomes a single place.
    """
    args: tuple[Any, ...] = node.args
    op: Any = node.target
    _, _, *places = args[0].meta["shape"]
    images = [row[:, None] if axis == 2 else row for row in torch.eye(places[axis - 2])]
    resized = [op(image.expand(1, 1, *places).contiguous(), *args[1:]) for image in images]
    return torch.cat(resized).select(5 - axis, 0)[:, 0].t().contiguous()
