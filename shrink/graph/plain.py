"""Layers that PyTorch has a name for and that are a few plain ops, written as those for every target.

What a runtime has a kernel of its own for is left to the rewrites of that target (`lower`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from shrink.graph.edit import add_constant, call, constant, is_constant
from shrink.graph.shapes import shape_of

aten = torch.ops.aten


def _pixel_shuffle(node: fx.Node, x: fx.Node, factor: int) -> fx.Node:
    """Channels moved to places; Shi et al. 2016."""
    *batch, channels, high, wide = shape_of(x)
    apart = [*batch, channels // factor**2, factor, factor, high, wide]
    return _regrouped(node, x, apart, [0, 3, 1, 4, 2])


def _pixel_unshuffle(node: fx.Node, x: fx.Node, factor: int) -> fx.Node:
    """Places moved to channels."""
    *batch, channels, high, wide = shape_of(x)
    apart = [*batch, channels, high // factor, factor, wide // factor, factor]
    return _regrouped(node, x, apart, [0, 2, 4, 1, 3])


def _channel_shuffle(node: fx.Node, x: fx.Node, groups: int) -> fx.Node:
    """The first channel of every group, then the second; Zhang et al. 2018."""
    batch, channels, *places = shape_of(x)
    apart = [batch, groups, channels // groups, *places]
    return _regrouped(node, x, apart, [1, 0, *range(2, 2 + len(places))])


def _regrouped(node: fx.Node, x: fx.Node, apart: list[int], order: list[int]) -> fx.Node:
    """Reshape, turn the last axes, reshape."""
    before = len(apart) - len(order)
    whole = [*range(before), *(before + axis for axis in order)]
    turned = call(node, aten.permute.default, call(node, aten.reshape.default, x, apart), whole)
    return call(node, aten.reshape.default, turned, shape_of(node))


def _glu(node: fx.Node, x: fx.Node, axis: int = -1) -> fx.Node:
    """One half times the sigmoid of the other; Dauphin et al. 2017."""
    size = shape_of(x)[axis]
    halves = [call(node, aten.slice.Tensor, x, axis, start, start + size // 2) for start in (0, size // 2)]
    return call(node, aten.mul.Tensor, halves[0], call(node, aten.sigmoid.default, halves[1]))


def _rrelu(node: fx.Node, x: fx.Node, low: float = 1 / 8, high: float = 1 / 3, training: bool = False, *_: Any) -> Any:
    """In inference the slope is the middle of those it was trained with; Xu et al. 2015."""
    return None if training else call(node, aten.leaky_relu.default, x, (low + high) / 2)


def _neg(node: fx.Node, x: fx.Node) -> fx.Node | None:
    return call(node, aten.mul.Tensor, x, -1) if node.meta["val"].dtype is torch.float32 else None


def _lerp(node: fx.Node, x: fx.Node, y: fx.Node, share: Any) -> fx.Node:
    """x + share (y - x)."""
    return call(node, aten.add.Tensor, x, call(node, aten.mul.Tensor, call(node, aten.sub.Tensor, y, x), share))


def _roll(node: fx.Node, x: fx.Node, shifts: Any, axes: Any = ()) -> fx.Node | None:
    """The end of an axis put before the rest of it."""
    if not axes:
        return None
    for shift, axis in zip(shifts, axes, strict=True):
        size = shape_of(x)[axis]
        if cut := (size - shift) % size:
            ends = [call(node, aten.slice.Tensor, x, axis, cut, size), call(node, aten.slice.Tensor, x, axis, 0, cut)]
            x = call(node, aten.cat.default, ends, axis)
    return x


def _cosine(node: fx.Node, x: fx.Node, y: fx.Node, axis: int = 1, least: float = 1e-8) -> fx.Node:
    """The sum of the products of two vectors of length one."""
    units = []
    for vectors in (x, y):
        length = call(node, aten.linalg_vector_norm.default, vectors, 2, [axis], True)
        units.append(call(node, aten.div.Tensor, vectors, call(node, aten.clamp_min.default, length, least)))
    return call(node, aten.sum.dim_IntList, call(node, aten.mul.Tensor, *units), [axis])


def _distances(node: fx.Node, x: fx.Node, y: fx.Node, power: float = 2.0, *_: Any) -> fx.Node | None:
    """The length of the difference of every row of one to every row of the other."""
    if math.prod(shape_of(node)) * shape_of(x)[-1] > MOST_DIFFERENCES:
        return None
    rows, columns = call(node, aten.unsqueeze.default, x, -2), call(node, aten.unsqueeze.default, y, -3)
    return call(node, aten.linalg_vector_norm.default, call(node, aten.sub.Tensor, rows, columns), power, [-1])


MOST_DIFFERENCES = 2**22
"""Numbers, all of which are in memory at once."""


def _conv1d(
    node: fx.Node, x: fx.Node, weight: fx.Node, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> fx.Node | None:  # fmt: skip
    """A convolution along one axis as one over an image of one row, or of one column if it looks at single places.

    A row of products, as an attention gives it, does not do for those: TFLite's converter takes the row into the batch
    of the product before, and refuses the file that it makes of it.
    """
    if not is_constant(weight) or len(shape_of(x)) != 3:
        return None
    module = node.graph.owning_module
    assert module is not None
    one = 3 if shape_of(weight)[2] == 1 else 2  # the axis that is added
    with node.graph.inserting_before(node):
        flat = add_constant(module, f"{node.name}_weight", constant(module, weight).unsqueeze(one))
    (step,), (edge,), (apart,) = (
        value if isinstance(value, list | tuple) else [value] for value in (stride, padding, dilation)
    )
    steps, edges, gaps = ([n, rest] if one == 3 else [rest, n] for n, rest in ((step, 1), (edge, 0), (apart, 1)))
    image = call(node, aten.unsqueeze.default, x, one)
    found = call(node, aten.conv2d.default, image, flat, bias, steps, edges, gaps, groups)
    return call(node, aten.squeeze.dim, found, one)


def _interleaved(node: fx.Node, x: fx.Node, times: Any, axis: int | None = None) -> fx.Node | None:
    """Every place of an axis so many times, one after the other, as a stretched axis beside it."""
    if axis is None or not isinstance(times, int):
        return None
    if times == 1:
        return x
    shape = shape_of(x)
    axis %= len(shape)
    apart = call(node, aten.reshape.default, x, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
    many = call(node, aten.expand.default, apart, [*shape[: axis + 1], times, *shape[axis + 1 :]])
    return call(node, aten.reshape.default, many, [*shape[:axis], shape[axis] * times, *shape[axis + 1 :]])


def _adaptive_average(node: fx.Node, x: fx.Node, wanted: Any) -> fx.Node | None:
    """Windows of one size side by side are a plain average pool, and nothing where they have one number each."""
    high, wide = shape_of(x)[-2:]
    rows, columns = wanted
    if high % rows or wide % columns or [*wanted] == [1, 1]:
        return None
    kernel = [high // rows, wide // columns]
    return x if kernel == [1, 1] else call(node, aten.avg_pool2d.default, x, kernel, kernel)


def _first(node: fx.Node, source: fx.Node, index: int) -> fx.Node | None:
    """Of values and their places, the values alone: a maximum along an axis, or an adaptive maximum as a plain pool,
    where its windows are all of one size, and otherwise over the rows of each window and then over its columns."""
    args: tuple[Any, ...] = source.args
    if source.op != "call_function" or index != 0:
        return None
    if source.target in EXTREMES:
        x, axis, *keep = args
        return call(node, EXTREMES[source.target], x, [axis], *keep)
    if source.target is not aten.adaptive_max_pool2d.default:
        return None
    x, wanted = args
    places = shape_of(x)[-2:]
    if not any(size % count for size, count in zip(places, wanted, strict=True)):
        kernel = [size // count for size, count in zip(places, wanted, strict=True)]
        return call(node, aten.max_pool2d.default, x, kernel, kernel)
    for axis, size, count in zip((-2, -1), places, wanted, strict=True):
        windows = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        parts = [call(node, aten.slice.Tensor, x, axis, *window) for window in windows]
        x = call(node, aten.cat.default, [call(node, aten.amax.default, part, [axis], True) for part in parts], axis)
    return x  # type: ignore[no-any-return]


EXTREMES = {aten.max.dim: aten.amax.default, aten.min.dim: aten.amin.default}


def _div(node: fx.Node, x: Any, y: Any) -> fx.Node | None:
    """Divided by a broken power is times its inverse, as in a local response norm; Krizhevsky et al. 2012."""
    if not isinstance(y, fx.Node) or y.target is not aten.pow.Tensor_Scalar or not isinstance(x, fx.Node):
        return None
    args: tuple[Any, ...] = y.args
    base, exponent = args
    if exponent == int(exponent):
        return None
    return call(node, aten.mul.Tensor, x, call(node, aten.pow.Tensor_Scalar, base, -exponent))


PLAIN: Mapping[object, Callable[..., fx.Node | None]] = {
    aten.adaptive_avg_pool2d.default: _adaptive_average,
    aten.cdist.default: _distances,
    aten.channel_shuffle.default: _channel_shuffle,
    aten.conv1d.default: _conv1d,
    aten.cosine_similarity.default: _cosine,
    aten.div.Tensor: _div,
    aten.glu.default: _glu,
    aten.lerp.Scalar: _lerp,
    aten.lerp.Tensor: _lerp,
    aten.neg.default: _neg,
    aten.pixel_shuffle.default: _pixel_shuffle,
    aten.pixel_unshuffle.default: _pixel_unshuffle,
    aten.repeat_interleave.self_int: _interleaved,
    aten.roll.default: _roll,
    aten.rrelu.default: _rrelu,
    operator.getitem: _first,
}
"""Rewrites of `spelling`; a function answers None to leave the node."""
