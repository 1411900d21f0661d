"""Rewrites of pools, padding and slices: they move numbers, or pick from them, and compute little."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from shrink.graph.edit import add_constant, call

aten = torch.ops.aten


def pool_to_mean(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A global average pool is a mean over height and width; XNNPACK's AVERAGE_POOL is float only."""
    size: Any = node.args[1]
    if list(size) not in ([1], [1, 1]):
        return None
    return call(node, aten.mean.dim, node.args[0], [2, 3], True)


def pool_padding(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Pad with 0 before a maximum of values that are not negative.

    PyTorch pads with minus infinity, which TFLite writes as PADV2: XNNPACK does not take it, and the graph is cut
    in two there.
    """
    args: list[Any] = [*node.args]
    x, kernel, stride, padding, dilation, ceil = args + [[], 0, 1, False][len(args) - 2 :]
    high, wide = (padding, padding) if isinstance(padding, int) else (padding[0], padding[-1])
    if not (high or wide) or ceil or not _is_nonnegative(x):
        return None
    padded = call(node, aten.constant_pad_nd.default, x, [wide, wide, high, high], 0.0)
    return call(node, aten.max_pool2d.default, padded, kernel, stride or kernel, [0, 0], dilation)


def _is_nonnegative(node: fx.Node) -> bool:
    if node.target is aten.hardtanh.default:
        return bool(node.args[1] >= 0)  # type: ignore[operator]
    return node.target in (aten.relu.default, aten.sigmoid.default)


def pool_of_one(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """An average over one number is a slice with steps: XNNPACK takes no pool of one place."""
    given: list[Any] = [*node.args]
    found, kernel, stride, padding, _, _, divisor = given + _POOL[len(given) :]
    steps = [stride] * 2 if isinstance(stride, int) else list(stride or kernel) * (2 // len(stride or kernel))
    ones = all(size == 1 for size in ([kernel] if isinstance(kernel, int) else kernel))
    if not ones or divisor not in (None, 1) or padding not in (0, [0], [0, 0]):
        return None
    shape = list(found.meta["shape"])
    for axis, step in zip((-2, -1), steps, strict=True):
        place = len(shape) + axis
        if step > 1:
            found = _every(node, found, shape, place, step)
            shape[place] = -(-shape[place] // step)
    return found  # type: ignore[no-any-return]


_POOL: list[Any] = [None, [1, 1], [], 0, False, True, None]  # defaults of avg_pool2d(x, kernel, stride, padding, ...)


def pad_with(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Padding with another number than 0 as a concatenation with a constant, which XNNPACK takes; it has no PADV2."""
    given: list[Any] = [*node.args, 0.0]
    found, counts, number = given[:3]
    if number == 0 or min(counts) < 0 or node.meta["dtype"] is not torch.float32:
        return None
    shape = list(found.meta["shape"])
    for place in range(0, len(counts), 2):
        axis = len(shape) - 1 - place // 2
        parts = [found]
        for count, at in ((counts[place], 0), (counts[place + 1], 2)):
            if count:
                with node.graph.inserting_before(node):
                    size = [*shape[:axis], count, *shape[axis + 1 :]]
                    parts.insert(at, add_constant(graph_module, f"{node.name}_edge", torch.full(size, float(number))))
        if len(parts) > 1:
            found, shape[axis] = call(node, aten.cat.default, parts, axis), shape[axis] + sum(counts[place : place + 2])
    return found  # type: ignore[no-any-return]


def every_other(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """x[start::step] as the start-th of every step numbers: XNNPACK takes slices without steps only.

    Zeros behind an axis that is no multiple of the step are never among them.
    """
    given: list[Any] = [*node.args]
    source, axis, start, _, step = given + _SLICE[len(given) :]
    shape = node.meta["shape"]
    size, axis = source.meta["shape"][axis], axis % len(shape)
    first = start or 0
    if step == 1 or not 0 <= first < step or shape[axis] != -(-size // step):
        return None
    return _every(node, source, list(source.meta["shape"]), axis, step, first)


_SLICE: list[Any] = [None, 0, None, None, 1]  # defaults of slice(x, axis, start, end, step)


def _every(node: fx.Node, source: fx.Node, shape: list[int], axis: int, step: int, first: int = 0) -> fx.Node:
    """The first-th of every `step` numbers along an axis of a value of that shape."""
    groups = -(-shape[axis] // step)
    if missing := groups * step - shape[axis]:
        source = call(node, aten.constant_pad_nd.default, source, [0, 0] * (len(shape) - 1 - axis) + [0, missing], 0.0)
    apart = [*shape[:axis], groups, step, *shape[axis + 1 :]]
    return call(node, aten.select.int, call(node, aten.reshape.default, source, apart), axis + 1, first)


def piece(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """One part of a split, chunk or unbind as a slice or selection of its own."""
    parts: Any = node.args[0]
    if parts.target not in PARTS:
        return None
    source, *rest = parts.args
    axis = rest[PARTS[parts.target]] if len(rest) > PARTS[parts.target] else parts.kwargs.get("dim", 0)
    index: Any = node.args[1]
    if parts.target is aten.unbind.int:
        return call(node, aten.select.int, source, axis, index)
    size = node.meta["shape"][axis]
    start = index * rest[0] if isinstance(rest[0], int) else sum(rest[0][:index])
    if parts.target is aten.chunk.default:
        start = index * -(-source.meta["shape"][axis] // rest[0])
    return call(node, aten.slice.Tensor, source, axis, start, start + size)


PARTS = {aten.unbind.int: 0, aten.split.Tensor: 1, aten.split_with_sizes.default: 1, aten.chunk.default: 1}
"""Ops that give several tensors -> where the axis stands behind their first argument."""
