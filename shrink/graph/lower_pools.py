"""Rewrites of pools into what a runtime computes without leaving its fast path."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from shrink.graph.clamps import CLAMPS, clamp_ends
from shrink.graph.convolution import pair
from shrink.graph.edit import add_constant, call, scalar_like
from shrink.graph.lower_convolutions import MOST_TAPS
from shrink.graph.lower_places import every
from shrink.graph.lower_selections import MOST_WEIGHTS
from shrink.graph.windows import MODES, MOST_COPIES, surround

aten = torch.ops.aten


def pool_to_mean(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A global average pool is a mean over height and width, one over windows of several sizes a linear over places.

    XNNPACK's AVERAGE_POOL is float only, and has windows of one size. An output's equal weights are exact in 8 bits.
    """
    x, wanted = node.args
    assert isinstance(x, fx.Node)
    size: Any = wanted
    if list(size) in ([1], [1, 1]):
        return call(node, aten.mean.dim, x, [2, 3], True)
    count, channels, high, wide = x.meta["shape"]
    if high * wide * math.prod(size) > MOST_WEIGHTS:
        return None
    kernel = torch.eye(high * wide).reshape(high * wide, 1, high, wide)
    weight = functional.adaptive_avg_pool2d(kernel, size).flatten(1).t().contiguous()
    with node.graph.inserting_before(node):
        weights = add_constant(graph_module, f"{node.name}_weight", weight)
    places = call(node, aten.reshape.default, x, [count, channels, high * wide])
    return call(node, aten.reshape.default, call(node, aten.linear.default, places, weights), [*node.meta["shape"]])


def across_channels(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """An average over neighbours along the first of three axes, as local response norms take it, as a sum of slices."""
    given: list[Any] = [*node.args]
    x, kernel, stride, padding, _, _, divisor = given + _POOL[len(given) :]
    count, *others = kernel
    if [*others, *(stride or kernel)] != [1, 1, 1, 1, 1] or any(padding if isinstance(padding, list) else [padding]):
        return None
    axis, places = len(x.meta["shape"]) - 3, node.meta["shape"][-3]
    total = call(node, aten.slice.Tensor, x, axis, 0, places)
    for i in range(1, count):
        total = call(node, aten.add.Tensor, total, call(node, aten.slice.Tensor, x, axis, i, i + places))
    share = scalar_like(graph_module, node, f"{node.name}_share", 1 / (divisor or count))
    return call(node, aten.mul.Tensor, total, share)


def pool_padding(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Pad with 0 before a maximum of values that are not negative, and with copies of the edges before any other.

    PyTorch pads with minus infinity, which TFLite writes as PADV2: XNNPACK does not take it, and the graph is cut
    in two there. A window that reaches over the edge holds the last row, too, as long as no more than half of it does,
    so that a copy of that row changes no maximum.
    """
    args: list[Any] = [*node.args]
    x, kernel, stride, padding, dilation, ceil = args + [[], 0, 1, False][len(args) - 2 :]
    high, wide = pair(padding)
    if not (high or wide) or ceil or (pair(dilation) == (1, 1) and _is_same(node, kernel, stride or kernel, padding)):
        return None
    pads = [wide, wide, high, high]
    if _is_nonnegative(x):
        padded = call(node, aten.constant_pad_nd.default, x, pads, 0.0)
    elif pair(dilation) == (1, 1) and max(pads) <= MOST_COPIES:
        padded = surround(node, x, pads, MODES["replicate"])
    else:
        return None
    return call(node, aten.max_pool2d.default, padded, kernel, stride or kernel, [0, 0], dilation)


def _is_same(node: fx.Node, kernel: Any, stride: Any, padding: Any) -> bool:
    """Whether windows begin every `stride` numbers and reach over both edges alike, the end by one more if uneven."""
    sizes, found = node.all_input_nodes[0].meta["shape"][2:], node.meta["shape"][2:]
    axes = zip(sizes, found, pair(kernel), pair(stride), pair(padding), strict=True)
    return all(
        places == -(-size // step) and edge == max((places - 1) * step + taps - size, 0) // 2
        for size, places, taps, step, edge in axes
    )


def _is_nonnegative(node: fx.Node) -> bool:
    return node.target is aten.sigmoid.default or (node.target in CLAMPS and clamp_ends(node)[0] >= 0)


def average_pool(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """An average over few places as a depthwise convolution with equal weights, over all of them as a mean.

    XNNPACK averages floats only, and the converter writes the pool in int8 where its neighbours are, so that the graph
    is cut in two there. The equal weights are all 127 in int8, which is exact. An average over one number is a slice
    with steps. Where windows reach over the edge, what they lack is a constant map of factors.
    """
    given: list[Any] = [*node.args]
    x, kernel, stride, padding, _, padded_too, divisor = given + _POOL[len(given) :]
    size, edge = pair(kernel), pair(padding)
    step = pair(stride or kernel)
    if len(x.meta["shape"]) != 4:
        return None
    _, channels, *places = x.meta["shape"]
    if size == (1, 1) and edge == (0, 0) and divisor in (None, 1):
        return _some_places(node, x, step)
    beyond = [max(0, (n - 1) * s + k - b - 2 * e)
              for n, s, k, b, e in zip(node.meta["shape"][2:], step, size, places, edge, strict=True)]  # fmt: skip
    uneven = any(beyond) or (edge != (0, 0) and not padded_too)
    if uneven and step == (1, 1):  # which TFLite has, in float
        return None
    if size == tuple(places) and edge == (0, 0) and divisor in (None, size[0] * size[1]):
        return call(node, aten.mean.dim, x, [2, 3], True)
    if size[0] * size[1] > MOST_TAPS:
        return None
    pads = [pad for e, b in reversed([*zip(edge, beyond, strict=True)]) for pad in (e, e + b)]
    weight = torch.full((channels, 1, *size), 1 / (divisor or size[0] * size[1]))
    with node.graph.inserting_before(node):
        weights = add_constant(graph_module, f"{node.name}_weight", weight)
    if any(beyond):
        x, edge = call(node, aten.constant_pad_nd.default, x, pads, 0.0), (0, 0)
    found = call(node, aten.conv2d.default, x, weights, None, [*step], [*edge], [1, 1], channels)
    if not uneven:
        return found
    ones = torch.ones(1, 1, *places)  # of which a window over the edge averages fewer than it adds up
    sums = functional.conv2d(functional.pad(ones, pads), weight[:1], stride=step)
    with node.graph.inserting_before(node):
        more = add_constant(graph_module, f"{node.name}_more", functional.avg_pool2d(ones, *given[1:]) / sums)
    return call(node, aten.mul.Tensor, found, more)


_POOL: list[Any] = [None, [1, 1], [], 0, False, True, None]  # defaults of avg_pool2d(x, kernel, stride, padding, ...)


def _some_places(node: fx.Node, found: fx.Node, steps: tuple[int, int]) -> fx.Node:
    shape = list(found.meta["shape"])
    for axis, step in zip((2, 3), steps, strict=True):
        if step > 1:
            found = every(node, found, shape, axis, step)
            shape[axis] = -(-shape[axis] // step)
    return found
