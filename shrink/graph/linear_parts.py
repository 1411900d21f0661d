"""Linears whose outputs are only taken apart again: queries, keys and values, or a gate and what it gates.

The parts of a float map are copies, which cost ONNX Runtime a tenth of MambaOut-Femto's time (Yu and Wang, CVPR 2025);
a linear for each writes them where they are read. Its weights are rows of the old ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx

from shrink.graph.edit import add_constant, call, constant, replace
from shrink.graph.shapes import order_of, shape_of, size_of
from shrink.graph.views import has_weights

aten = torch.ops.aten
LEAST = 16
"""Outputs of a part."""
MOST = 4
"""Parts, as of queries, keys, values and a gate; of more, each a small product, none was measured."""
TILE = 64
"""Outputs that XNNPACK computes at once with AMX; it takes as long for fewer."""
LARGE = 200_000
"""Numbers in all outputs from which on parts pay in XNNPACK, which makes the codes of the input anew for each.

On a processor with AMX: 0.88 of the time of BEiT-base (454,000 numbers), 0.97 of DeiT3-small (227,000), but 1.02 of
ViT-Tiny (113,000).
"""


@dataclass(frozen=True, slots=True)
class _View:
    """How a value is seen of the outputs of a linear: they are reshaped, and the axes of that are put in an order.

    Attributes:
        shape: what they are reshaped to, the axes of positions first.
        positions: how many of those axes there are.
        axes: of the value, as axes of `shape`, or None for an axis of one place that was put in.
    """

    shape: tuple[int, ...]
    positions: int
    axes: tuple[int | None, ...]

    def seen_as(self, axes: tuple[int | None, ...]) -> _View:
        return _View(self.shape, self.positions, axes)


@dataclass(frozen=True, slots=True)
class _Part:
    """Outputs that one node takes from a view: `places` of an axis of its shape."""

    node: fx.Node
    view: _View
    axis: int
    places: range


def split_linears(graph_module: fx.GraphModule, *, tile: int = 1, least: int = 0) -> int:
    """Write linears that are read in parts as one linear per part, in place; returns how many there were.

    Args:
        tile: outputs of every part are a multiple of it.
        least: numbers that such a linear gives.
    """
    linears = [node for node in graph_module.graph.nodes if node.target is aten.linear.default and has_weights(node)]
    return sum([_split(graph_module, node, tile) for node in linears if size_of(node) >= least])


def _split(graph_module: fx.GraphModule, linear: fx.Node, tile: int) -> bool:
    shape = tuple(shape_of(linear))
    whole = _View(shape, len(shape) - 1, tuple(range(len(shape))))
    read = list(_parts(linear, whole))
    parts = [part for part in read if part is not None]
    sizes = [_size(part) for part in parts]
    if len(parts) < len(read) or not 2 <= len(parts) <= MOST or sum(sizes) > shape[-1]:
        return False
    if any(size < LEAST or size % tile for size in sizes):
        return False
    for part in parts:
        replace(part.node, _alone(graph_module, linear, part))
    return True


def _size(part: _Part) -> int:
    outputs = part.view.shape[part.view.positions :]
    return prod(outputs) // part.view.shape[part.axis] * len(part.places)


def _parts(node: fx.Node, view: _View) -> Iterator[_Part | None]:
    """What is read of a view of the outputs, None for what is no part of them."""
    for user in node.users:
        if user.target in (aten.select.int, aten.slice.Tensor):
            yield _taken(user, view)
        elif (seen := _seen(user, view)) is not None:
            yield from _parts(user, seen)
        else:
            yield None


def _seen(user: fx.Node, view: _View) -> _View | None:
    """The view that a reshape, or another order of the axes, makes of a view."""
    args: Sequence[Any] = user.args
    if user.target in (aten.permute.default, aten.transpose.int):
        return view.seen_as(tuple(view.axes[axis] for axis in order_of(user)))
    if user.target is aten.unsqueeze.default:
        axis = args[1] % (len(view.axes) + 1)
        return view.seen_as((*view.axes[:axis], None, *view.axes[axis:]))
    if user.target is aten.squeeze.dim:
        axis = args[1] % len(view.axes)
        return view.seen_as((*view.axes[:axis], *view.axes[axis + 1 :])) if view.axes[axis] is None else None
    if user.target is aten.reshape.default and view.axes == tuple(range(len(view.shape))):
        return _reshaped(view, tuple(shape_of(user)))
    return None


def _reshaped(view: _View, shape: tuple[int, ...]) -> _View | None:
    """The outputs parted in several axes, and the positions in any."""
    before = prod(view.shape[: view.positions])
    for positions in range(len(shape)):
        if prod(shape[:positions]) == before:
            return _View(shape, positions, tuple(range(len(shape))))
    return None


def _taken(user: fx.Node, view: _View) -> _Part | None:
    args: Sequence[Any] = user.args
    axis = view.axes[args[1] % len(view.axes)]
    if axis is None or axis < view.positions:
        return None
    size = view.shape[axis]
    if user.target is aten.select.int:
        return _Part(user, view, axis, range(args[2] % size, args[2] % size + 1))
    start, end, step = slice(*(*args, None, None, None)[2:5]).indices(size)
    return _Part(user, view, axis, range(start, end)) if step == 1 else None


def _alone(graph_module: fx.GraphModule, linear: fx.Node, part: _Part) -> fx.Node:
    """The same from a linear of its own."""
    view = part.view
    outputs = view.shape[view.positions :]
    rows = torch.arange(prod(outputs)).reshape(outputs)
    rows = rows.index_select(part.axis - view.positions, torch.tensor(part.places)).flatten()
    given = []
    with part.node.graph.inserting_before(part.node):
        for number, arg in enumerate(linear.args[1:]):
            numbers = None if arg is None else constant(graph_module, arg)[rows]
            given.append(None if numbers is None else add_constant(graph_module, f"{part.node.name}_{number}", numbers))
    found = call(part.node, aten.linear.default, linear.args[0], *given)
    found.meta["layer"] = linear.meta.get("layer", "")

    shape = [*view.shape]
    shape[part.axis] = len(part.places)
    kept = [axis for axis in view.axes if axis is not None]
    if part.node.target is aten.select.int:
        kept.remove(part.axis)
        del shape[part.axis]
        kept = [axis - (axis > part.axis) for axis in kept]
    found = _shaped(part.node, found, shape)
    if kept != sorted(kept):
        found = call(part.node, aten.permute.default, found, kept)
    return _shaped(part.node, found, shape_of(part.node))


def _shaped(at: fx.Node, value: fx.Node, shape: list[int]) -> fx.Node:
    return value if shape_of(value) == shape else call(at, aten.reshape.default, value, shape)
