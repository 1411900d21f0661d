"""Rules of the ops that compute: elementwise functions, reductions, norms, convolutions and products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from shrink.graph.convolution import convolution
from shrink.prune.trace import Dims, Trace, argument, at, freeze_all, shape_of, unknown
from shrink.prune.units import Labels


def elementwise(trace: Trace, node: fx.Node) -> Dims:
    """Any function of single elements, with broadcasting: channel i meets channel i."""
    shape = shape_of(node)
    out: Dims = []
    for axis, size in enumerate(shape):
        back = len(shape) - axis
        meet = [
            trace.of(source)[-back]
            for source in node.all_input_nodes
            if len(shape_of(source)) >= back and shape_of(source)[-back] == size and size > 1
        ]
        for other in meet[1:]:
            trace.units.tie(meet[0], other, f"{at(node)} joins it with what must stay")
        out.append(meet[0] if meet else None)
    return out


def spatial(trace: Trace, node: fx.Node) -> Dims:
    """Pooling and resizing: over the last two dimensions, each channel alone."""
    x = trace.of(node.args[0])
    for labels in x[-2:]:
        trace.units.freeze(labels, f"{at(node)} mixes neighbours")
    return [*x[:-2], None, None]


def reduction(trace: Trace, node: fx.Node, position: int = 1, *, zeros_count: bool = True) -> Dims:
    """A reduction over given axes. `zeros_count`: a channel of zeros changes the result, as in a mean."""
    x, rank = trace.of(node.args[0]), len(shape_of(node.args[0]))
    given = argument(node, position, "dim")
    axes = {axis % rank for axis in ([given] if isinstance(given, int) else given or range(rank))}
    for axis in axes if zeros_count else ():
        trace.units.freeze(x[axis], f"{at(node)} is over these channels")
    if len(shape_of(node)) == rank:
        return [None if axis in axes else labels for axis, labels in enumerate(x)]
    return [labels for axis, labels in enumerate(x) if axis not in axes]


def total(trace: Trace, node: fx.Node) -> Dims:
    """A sum: a channel of zeros adds nothing."""
    return reduction(trace, node, zeros_count=False)


def length(trace: Trace, node: fx.Node) -> Dims:
    """A vector norm: likewise."""
    return reduction(trace, node, 2, zeros_count=False)


def normalized(trace: Trace, node: fx.Node) -> Dims:
    """Softmax and the like: the axis is seen as a whole."""
    x = list(trace.of(node.args[0]))
    axis = argument(node, 1, "dim")
    trace.units.freeze(x[axis], f"{at(node)} is over these channels")
    x[axis] = None
    return x


def layer_norm(trace: Trace, node: fx.Node) -> Dims:
    """The mean and variance are over the last dimensions: without a channel they would be others."""
    x = list(trace.of(node.args[0]))
    count = len(argument(node, 1, "normalized_shape"))
    for axis in range(-count, 0):
        trace.units.freeze(x[axis], f"{at(node)} takes mean and variance over these channels")
        x[axis] = None
    for parameter in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        if parameter is not None:
            freeze_all(trace, parameter, f"{at(node)} takes mean and variance over these channels")
    return x


def group_norm(trace: Trace, node: fx.Node) -> Dims:
    """Whole groups of channels can go: each has a mean and variance of its own."""
    x, groups = list(trace.of(node.args[0])), int(argument(node, 1, "num_groups"))
    why = f"{at(node)} takes mean and variance over these channels"
    if groups == 1:
        trace.units.freeze(x[1], why)
    elif x[1] is not None:
        trace.units.merge_rows(x[1].reshape(groups, -1), why)
    for parameter in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        if parameter is not None:
            trace.units.tie(x[1], trace.of(parameter)[0], why)
    return x


def conv(trace: Trace, node: fx.Node) -> Dims:
    """Channels in and out of a convolution, in groups or not."""
    c, why = convolution(node), f"{at(node)} reads what must stay"
    x, weight, sizes = trace.of(c.x), trace.of(c.weight), shape_of(c.weight)
    for axis, labels in [*enumerate(x), *enumerate(weight)]:
        if axis > 1:
            trace.units.freeze(labels, "a place in the picture")
    if c.bias is not None:
        trace.units.tie(weight[0], trace.of(c.bias)[0], why)
    if c.groups == 1:
        trace.units.tie(x[1], weight[1], why)
    elif sizes[1] == 1 or trace.family == "outer":
        _whole_groups(trace, x[1], weight, c.groups, why)
    else:
        _within_groups(trace, x[1], weight, c.groups, why)
    return [x[0], weight[0], None, None]


def _whole_groups(trace: Trace, x: Labels, weight: Dims, groups: int, why: str) -> None:
    """Group i goes with all that it reads and writes."""
    trace.units.freeze(weight[1], why)
    if x is None or weight[0] is None:
        trace.units.freeze(x, why)
        trace.units.freeze(weight[0], why)
        return
    read = trace.units.merge_rows(x.reshape(groups, -1), why)
    written = trace.units.merge_rows(weight[0].reshape(groups, -1), why)
    trace.units.tie(read, written, why)


def _within_groups(trace: Trace, x: Labels, weight: Dims, groups: int, why: str) -> None:
    """Channel i of every group goes; so do rows i of every group."""
    if weight[0] is not None:
        trace.units.merge_rows(weight[0].reshape(groups, -1).T, why)
    read = None if x is None else trace.units.merge_rows(x.reshape(groups, -1).T, why)
    trace.units.tie(read, weight[1], why)


def linear(trace: Trace, node: fx.Node) -> Dims:
    x, weight, bias = trace.of(node.args[0]), trace.of(node.args[1]), argument(node, 2, "bias")
    why = f"{at(node)} reads what must stay"
    trace.units.tie(x[-1], weight[1], why)
    if bias is not None:
        trace.units.tie(weight[0], trace.of(bias)[0], why)
    return [*x[:-1], weight[0]]


def matmul(trace: Trace, node: fx.Node) -> Dims:
    """(..., M, K) x (..., K, N): the sum over K does not see channels of zeros."""
    a, b = trace.of(node.args[0]), trace.of(node.args[1])
    if min(len(a), len(b)) < 2:
        return unknown(trace, node)
    trace.units.tie(a[-1], b[-2], f"{at(node)} multiplies it with what must stay")
    return [*_batch(trace, node, [node.args[0], node.args[1]]), a[-2], b[-1]]


def _batch(trace: Trace, node: fx.Node, sources: Sequence[Any]) -> Dims:
    """Leading dimensions of a product, with broadcasting."""
    shape = shape_of(node)
    out: Dims = []
    for axis in range(len(shape) - 2):
        back, size = len(shape) - axis, shape[axis]
        meet = [
            trace.of(s)[-back] for s in sources if len(shape_of(s)) >= back and shape_of(s)[-back] == size and size > 1
        ]
        for other in meet[1:]:
            trace.units.tie(meet[0], other, f"{at(node)} joins it with what must stay")
        out.append(meet[0] if meet else None)
    return out


def attention(trace: Trace, node: fx.Node) -> Dims:
    """softmax(q k' scale + mask) v; the scale is written down as the width was."""
    query, key, value = node.args[:3]
    q, k, v = trace.of(query), trace.of(key), trace.of(value)
    mask = argument(node, 3, "attn_mask")
    trace.units.tie(q[-1], k[-1], f"{at(node)} multiplies it with what must stay")
    trace.units.tie(k[-2], v[-2], f"{at(node)} multiplies it with what must stay")
    trace.units.freeze(k[-2], f"{at(node)} takes a softmax over them")
    masks = [] if mask is None else [mask]
    for one in masks:
        for labels in trace.of(one)[-2:]:
            trace.units.freeze(labels, "a token")
    trace.units.freeze(q[-2], "a token")
    return [*_batch(trace, node, [query, key, value, *masks]), None, v[-1]]
