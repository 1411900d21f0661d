"""Take units out of a copy of the graph: smaller constants, and the shapes that the graph writes down."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from shrink.graph.clean import tidy
from shrink.graph.convolution import convolution
from shrink.graph.edit import constant
from shrink.graph.shapes import annotate_shapes, input_shape
from shrink.prune.groups import Coupling
from shrink.prune.rules_shape import pads_of, slice_of, split_of
from shrink.prune.trace import argument, shape_of

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is left of every dimension."""

    coupling: Coupling
    dead: NDArray[np.bool_]  # (units,)

    def left(self, node: Any, axis: int) -> NDArray[np.bool_]:
        """(size,) true for the coordinates of a dimension that stay."""
        axis %= len(shape_of(node))
        alive = self.coupling.alive((node.name, axis), self.dead)
        return np.ones(shape_of(node)[axis], bool) if alive is None else alive

    def shape(self, node: Any) -> list[int]:
        """Shape of a value in the smaller graph."""
        return [int(self.left(node, axis).sum()) for axis in range(len(shape_of(node)))]


def remove(graph_module: fx.GraphModule, coupling: Coupling, dead: NDArray[np.bool_]) -> fx.GraphModule:
    """A copy of the graph without the units that are `dead`.

    Args:
        graph_module: the graph that `coupling` was found in; not changed, and its large tensors are shared.
        coupling: its groups.
        dead: (units,), true for those to remove.
    """
    sizes = Sizes(coupling, dead)
    shared = {id(tensor): tensor for tensor in (*graph_module.parameters(), *graph_module.buffers())}
    small = copy.deepcopy(graph_module, shared)
    for old, new in zip(graph_module.graph.nodes, small.graph.nodes, strict=True):
        if old.op == "get_attr":
            _shrink(small, sizes, old)
        elif old.target in PATCHES:
            PATCHES[old.target](sizes, old, new)
    tidy(small)
    annotate_shapes(small, torch.zeros(input_shape(graph_module)))
    return small


def masked(graph_module: fx.GraphModule, coupling: Coupling, dead: NDArray[np.bool_]) -> fx.GraphModule:
    """The graph at its full size with zeros in place of what `remove` would take out of its constants."""
    sizes = Sizes(coupling, dead)
    shared = {id(tensor): tensor for tensor in (*graph_module.parameters(), *graph_module.buffers())}
    full = copy.deepcopy(graph_module, shared)
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            value = constant(graph_module, node).clone()
            for axis in range(value.dim()):
                gone = torch.from_numpy(~sizes.left(node, axis))
                value.movedim(axis, 0)[gone] = 0
            put(full, str(node.target), value)
    return full


def get(graph_module: fx.GraphModule, target: str) -> Tensor:
    """A constant by its name."""
    owner, _, leaf = target.rpartition(".")
    value: Tensor = getattr(graph_module.get_submodule(owner), leaf).detach()
    return value


def put(graph_module: fx.GraphModule, target: str, value: Tensor) -> None:
    """Set a constant, with whatever shape."""
    owner, _, leaf = target.rpartition(".")
    module = graph_module.get_submodule(owner)
    was_parameter = isinstance(getattr(module, leaf), nn.Parameter)
    delattr(module, leaf)
    if was_parameter:
        module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    else:
        module.register_buffer(leaf, value)


def _shrink(small: fx.GraphModule, sizes: Sizes, node: fx.Node) -> None:
    value = full = constant(small, node)
    if list(full.shape) != list(shape_of(node)):
        return  # read twice, and done
    for axis in range(full.dim()):
        left = sizes.left(node, axis)
        if not left.all():
            value = value.index_select(axis, torch.from_numpy(np.flatnonzero(left)))
    if value is not full:
        put(small, str(node.target), value.contiguous())


Patch = Callable[[Sizes, fx.Node, fx.Node], None]
"""Change a node of the copy; the node of the original, with its shapes, is the second argument."""


def _shape(sizes: Sizes, old: fx.Node, new: fx.Node) -> None:
    new.update_arg(1, sizes.shape(old))


def _unflatten(sizes: Sizes, old: fx.Node, new: fx.Node) -> None:
    given: Any = old.args[1:]
    axis, count = given[0] % len(shape_of(old.args[0])), len(given[1])
    new.update_arg(2, sizes.shape(old)[axis : axis + count])


def _slice(sizes: Sizes, old: fx.Node, new: fx.Node) -> None:
    axis, part = slice_of(old)
    left = sizes.left(old.args[0], axis)
    if not left.all():
        new.args = (new.args[0], axis, int(left[: part.start].sum()), int(left[: part.stop].sum()))
        new.kwargs = {}


def _split(sizes: Sizes, old: fx.Node, new: fx.Node) -> None:
    axis, bounds = split_of(old)
    left = sizes.left(old.args[0], axis)
    if not left.all():
        parts = [int(left[a:b].sum()) for a, b in pairwise(bounds)]
        new.target, new.args, new.kwargs = aten.split_with_sizes.default, (new.args[0], parts, axis), {}


def _pad(sizes: Sizes, old: fx.Node, new: fx.Node) -> None:
    given: list[int] = list(old.args[1])  # type: ignore[arg-type]
    rank = len(shape_of(old))
    for axis, (low, high) in pads_of(old).items():
        left, back = sizes.left(old, axis), rank - 1 - axis
        if not left.all():
            given[2 * back] = int(left[:low].sum())
            given[2 * back + 1] = int(left[len(left) - high :].sum())
    new.update_arg(1, given)


def _conv(sizes: Sizes, old: fx.Node, new: fx.Node) -> None:
    c = convolution(old)
    if c.groups > 1:
        groups = int(sizes.left(c.x, 1).sum()) // int(sizes.left(c.weight, 1).sum())
        new.args = (*new.args[:3], c.stride, c.padding, c.dilation, groups) if len(new.args) > 2 else new.args
        assert len(new.args) == 7, new


def _group_norm(sizes: Sizes, old: fx.Node, new: fx.Node) -> None:
    each = shape_of(old)[1] // int(argument(old, 1, "num_groups"))
    new.update_arg(1, int(sizes.left(old, 1).sum()) // each)


def _attention(sizes: Sizes, old: fx.Node, new: fx.Node) -> None:
    """The scale that PyTorch takes from the width must not change with it."""
    if argument(old, 6, "scale") is None and not sizes.left(old.args[0], -1).all():
        new.update_kwarg("scale", shape_of(old.args[0])[-1] ** -0.5)


PATCHES: dict[object, Patch] = {
    aten.reshape.default: _shape,
    aten.expand.default: _shape,
    aten.unflatten.int: _unflatten,
    aten.slice.Tensor: _slice,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.chunk.default: _split,
    aten.constant_pad_nd.default: _pad,
    aten.conv2d.default: _conv,
    aten.group_norm.default: _group_norm,
    aten.scaled_dot_product_attention.default: _attention,
}
"""Ops that write down a size."""
