"""What each op does to channels: one row per op, from the labels of its inputs to the labels of its output.

A rule ties labels that must go together, freezes those that must stay, and answers the labels of the output,
one entry per dimension. An op without a row freezes all that reaches it, so a missing row costs
compression and never a wrong answer.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from shrink.graph.convolution import convolution
from shrink.prune.units import STAYS, Labels, Units

aten = torch.ops.aten
Dims = list[Labels]
Family = Literal["inner", "outer"]
"""Where a dimension is split in two, such as channels into heads and width: which of them loses coordinates."""


@dataclass(slots=True)
class Trace:
    """Labels found so far."""

    family: Family
    units: Units = field(default_factory=Units)
    dims: dict[fx.Node, Any] = field(default_factory=dict)  # Dims, or a list of Dims for a list of tensors
    constants: dict[str, Dims] = field(default_factory=dict)  # by target: a shared weight has one set of labels

    def of(self, node: Any) -> Dims:
        """Labels of a node's one tensor."""
        found: Dims = self.dims[node]
        return found


Rule = Callable[[Trace, fx.Node], Any]


def at(node: fx.Node) -> str:
    """An op and its layer, for a reason."""
    layer = node.meta.get("layer", "")
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    return f"{name} in {layer}" if layer else name


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of a node's tensor; of the parts, where it is a list of tensors, see `_split`."""
    shape: tuple[int, ...] = node.meta["shape"]
    return shape


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def unknown(trace: Trace, node: fx.Node) -> Dims:
    """No rule: everything that comes in stays."""
    for source in node.all_input_nodes:
        _freeze_all(trace, source, f"no rule for {at(node)}")
    return [None] * len(node.meta.get("shape", ()))


def _freeze_all(trace: Trace, source: fx.Node, why: str) -> None:
    parts = trace.dims[source]
    for labels in parts:
        for one in labels if isinstance(labels, list) else [labels]:
            trace.units.freeze(one, why)


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
            _freeze_all(trace, parameter, f"{at(node)} takes mean and variance over these channels")
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
    if user.target is aten.permute.default:
        order: Any = argument(user, 1, "dims")
        return picked(user, [place % rank for place in order].index(axis))
    if user.target is aten.transpose.int:
        pair: Any = [place % rank for place in user.args[1:]]  # type: ignore[operator]
        return picked(user, pair[1 - pair.index(axis)] if axis in pair else axis)
    if RULES.get(user.target) is reshape:
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
    parts = [None if labels is None else labels[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    return [[part if i == axis % len(x) else other for i, other in enumerate(x)] for part in parts]


def split_of(node: fx.Node) -> tuple[int, list[int]]:
    """Axis and bounds of the parts of a split or chunk node."""
    axis = int(argument(node, 2, "dim", 0))
    size, given = shape_of(node.args[0])[axis], node.args[1]
    if isinstance(given, (list, tuple)):
        return axis, np.cumsum([0, *given]).tolist()
    step = -(-size // int(given)) if node.target is aten.chunk.default else int(given)  # type: ignore[call-overload]
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


def _rows(rule: Rule, *names: str) -> dict[object, Rule]:
    return {getattr(getattr(aten, name.partition(".")[0]), name.partition(".")[2]): rule for name in names}


RULES: dict[object, Rule] = {
    operator.getitem: item,
    **_rows(
        elementwise,
        *"add.Tensor sub.Tensor mul.Tensor div.Tensor pow.Tensor_Scalar neg.default abs.default exp.default".split(),
        *"sqrt.default rsqrt.default relu.default hardtanh.default clamp.default clamp_min.default".split(),
        *"gelu.default silu.default sigmoid.default tanh.default hardsigmoid.default hardswish.default".split(),
        *"elu.default leaky_relu.default mish.default softplus.default maximum.default minimum.default".split(),
        *"clone.default square.default reciprocal.default add.Scalar mul.Scalar div.Scalar sub.Scalar".split(),
        *"_to_copy.default where.self masked_fill.Scalar logical_not.default eq.Scalar ne.Scalar".split(),
    ),
    **_rows(
        spatial,
        *"adaptive_avg_pool2d.default avg_pool2d.default max_pool2d.default adaptive_max_pool2d.default".split(),
        *"upsample_bilinear2d.vec upsample_nearest2d.vec upsample_bicubic2d.vec upsample_bilinear2d.default".split(),
        *"upsample_nearest2d.default".split(),
    ),
    **_rows(reduction, "mean.dim", "amax.default", "amin.default", "var.correction"),
    **_rows(total, "sum.dim_IntList"),
    **_rows(length, "linalg_vector_norm.default"),
    **_rows(normalized, "softmax.int", "_softmax.default", "log_softmax.int"),
    **_rows(layer_norm, "layer_norm.default"),
    **_rows(group_norm, "group_norm.default"),
    **_rows(permute, "permute.default"),
    **_rows(transpose, "transpose.int"),
    **_rows(
        reshape,
        *"reshape.default flatten.using_ints unflatten.int squeeze.dim squeeze.dims squeeze.default".split(),
        "unsqueeze.default",
    ),
    **_rows(expand, "expand.default"),
    **_rows(slice_, "slice.Tensor"),
    **_rows(select, "select.int"),
    **_rows(split, "split.Tensor", "split_with_sizes.default", "chunk.default"),
    **_rows(unbind, "unbind.int"),
    **_rows(cat, "cat.default"),
    **_rows(pad, "constant_pad_nd.default"),
    **_rows(roll, "roll.default"),
    **_rows(conv, "conv2d.default"),
    **_rows(linear, "linear.default"),
    **_rows(matmul, "matmul.default", "bmm.default"),
    **_rows(attention, "scaled_dot_product_attention.default"),
}
