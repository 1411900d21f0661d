"""One spelling for every op: PyTorch has several names for one thing, and the tables of the targets know one.

Some spellings also keep a converter from going wrong without a word. litert-torch 0.10 turns the axes of
a feature map to channels-last, but not those of `repeat`; and it merges c - conv(x) into the convolution
as if it were conv(x) - c.
What is left as it is has no other spelling. All rewrites are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from shrink.graph.clamps import CLAMPS
from shrink.graph.convolution import pair
from shrink.graph.edit import add_constant, call, constant, is_constant, replace
from shrink.graph.plain import PLAIN
from shrink.graph.shapes import shape_of

aten = torch.ops.aten

ALIASES = {
    aten.view.default: aten.reshape.default,  # a view asks for strides that a dropped copy had made
    aten._unsafe_view.default: aten.reshape.default,
    aten._reshape_copy.default: aten.reshape.default,
    aten.concat.default: aten.cat.default,
    aten.concatenate.default: aten.cat.default,
    aten.multiply.Tensor: aten.mul.Tensor,
    aten.subtract.Tensor: aten.sub.Tensor,
    aten.divide.Tensor: aten.div.Tensor,
    aten.true_divide.Tensor: aten.div.Tensor,
    aten.max.other: aten.maximum.default,
    aten.min.other: aten.minimum.default,
}
"""Ops that take the same arguments under another name."""


def rename(graph_module: fx.GraphModule) -> None:
    """Call every op by its one name, in place."""
    for node in graph_module.graph.nodes:
        node.target = ALIASES.get(node.target, node.target)


def unify(graph_module: fx.GraphModule) -> None:
    """Write what takes other arguments under another name in its one spelling, in place; constants are folded."""
    for node in list(graph_module.graph.nodes):
        rewrite = REWRITES.get(node.target)
        new = rewrite(node, *node.args, **node.kwargs) if rewrite else None
        if new is not None:
            if new not in node.all_input_nodes:
                new.meta.update(node.meta)
            replace(node, new)
    for node in list(graph_module.graph.nodes):
        if node.target in CLAMPS:
            _clamp_before_pool(node)
        if node.target in (aten.permute.default, aten.transpose.int):
            _turn_before_expand(node)


def _relu6(node: fx.Node, x: fx.Node) -> fx.Node:
    return call(node, aten.hardtanh.default, x, 0.0, 6.0)


def _clamp(node: fx.Node, x: fx.Node, low: Any = None, high: Any = None) -> fx.Node | None:
    if node.meta["val"].dtype is not torch.float32:
        return None
    if low == 0 and high is None:
        return call(node, aten.relu.default, x)
    two_ends = all(isinstance(end, int | float) and math.isfinite(end) for end in (low, high)) and low < high
    return call(node, aten.hardtanh.default, x, float(low), float(high)) if two_ends else None


def _pad(node: fx.Node, x: fx.Node, pads: Any, mode: str = "constant", value: float | None = None) -> fx.Node | None:
    if not any(pads):
        return x
    return call(node, aten.constant_pad_nd.default, x, pads, value or 0.0) if mode == "constant" else None


def _pad_with(_: fx.Node, x: fx.Node, pads: Any, value: float = 0.0) -> fx.Node | None:
    """Nothing, where nothing is added, as in window attention whose windows happen to fit."""
    return None if any(pads) else x


def _padded_conv(
    node: fx.Node, x: fx.Node, weight: fx.Node, bias: Any = None, stride: Any = 1, padding: str = "valid",
    dilation: Any = 1, groups: int = 1,
) -> fx.Node | None:  # fmt: skip
    """A convolution whose padding is a word; "same" pads one more at the end where the total is odd."""
    strides, dilations = [*pair(stride)], [*pair(dilation)]
    totals = [0, 0]
    if padding == "same":
        totals = [step * (size - 1) for step, size in zip(dilations, shape_of(weight)[2:], strict=True)]
    halves = [total // 2 for total in totals]
    if any(total % 2 for total in totals):
        pads = [pad for total in reversed(totals) for pad in (total // 2, total - total // 2)]
        x, halves = call(node, aten.constant_pad_nd.default, x, pads, 0.0), [0, 0]
    return call(node, aten.conv2d.default, x, weight, bias, strides, halves, dilations, groups)


def _add(node: fx.Node, x: fx.Node, y: Any, *, alpha: Any = 1) -> fx.Node | None:
    """x + alpha y, which TFLite has not, as a product and a sum; likewise a difference."""
    if alpha == 1:
        return _reversed_sub(node, y, x) if node.target is aten.sub.Tensor and is_constant(x) else None
    product = call(node, aten.mul.Tensor, y, alpha) if isinstance(y, fx.Node) else y * alpha
    op = aten.add.Tensor if node.target is aten.add.Tensor else aten.sub.Tensor
    return call(node, op, x, product)


def _addcmul(node: fx.Node, x: fx.Node, y: fx.Node, z: fx.Node, *, value: Any = 1) -> fx.Node:
    """x + value y z."""
    product = call(node, aten.mul.Tensor, y, z)
    return call(node, aten.add.Tensor, call(node, aten.mul.Tensor, product, value) if value != 1 else product, x)


def _reversed_sub(node: fx.Node, x: fx.Node, y: Any, alpha: Any = 1) -> fx.Node | None:
    """y - x as -x + y."""
    return call(node, aten.add.Tensor, call(node, aten.mul.Tensor, x, -1), y) if alpha == 1 else None


def _mean(node: fx.Node, x: fx.Node, axes: Any, keepdim: bool = False, *, dtype: Any = None) -> fx.Node | None:
    """Over all axes, which are named: of none torch 2.13 writes an ONNX file that no runtime takes."""
    return call(node, aten.mean.dim, x, [*range(len(shape_of(x)))], keepdim) if axes is None and dtype is None else None


def _expand(node: fx.Node, x: fx.Node, size: Any, implicit: bool = False) -> fx.Node | None:
    """Nothing, where every reader stretches the value itself; litert-torch 0.10 forgets to turn the axes of `size`."""
    return x if node.users and all(_stretches(user, node, x) for user in node.users) else None


def _stretches(user: fx.Node, node: fx.Node, by: fx.Node) -> bool:
    """Whether an elementwise op gives the same shape when it reads `by` instead of `node`."""
    shapes = [shape_of(by if n is node else n) for n in user.args[:2] if isinstance(n, fx.Node)]
    return user.target in BROADCASTING and list(np.broadcast_shapes(*shapes)) == shape_of(user)


BROADCASTING = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def _repeat(node: fx.Node, x: fx.Node, times: Any) -> fx.Node:
    shape = shape_of(x)
    times = [1] * (len(shape) - len(times)) + list(times)  # of `tile`
    if len(times) > len(shape):
        x = call(node, aten.reshape.default, x, [1] * (len(times) - len(shape)) + shape)
    for axis, count in enumerate(times):
        if count != 1:
            x = call(node, aten.cat.default, [x] * count, axis)
    return x


def _product(node: fx.Node, x: fx.Node, y: fx.Node) -> fx.Node | None:
    """A product with a constant matrix as a linear, whose weights an int8 file holds in 8 bits.

    TFLite multiplies as many matrices as there are on the other side only, and would stretch the constant.
    """
    if is_constant(x) or not is_constant(y) or len(shape_of(y)) != 2 or len(shape_of(x)) < 2:
        return _thin_product(node, x, y)
    module = node.graph.owning_module
    assert module is not None
    with node.graph.inserting_before(node):
        weight = add_constant(module, f"{node.name}_weight", constant(module, y).t().contiguous())
    return call(node, aten.linear.default, x, weight)


def _thin_product(node: fx.Node, x: fx.Node, y: fx.Node) -> fx.Node | None:
    """A product of a column and a row as numbers times numbers; one with a column as one with a row, on the other side.

    litert-torch 0.10 fails on both: on the first for its sizes, on the second where the column is reshaped after it.
    """
    if min(len(shape_of(x)), len(shape_of(y))) < 2:
        return None
    rows, inner, columns = *shape_of(x)[-2:], shape_of(y)[-1]
    if inner == 1:
        return call(node, aten.mul.Tensor, x, y)
    if columns != 1 or rows == 1:
        return None
    row, turned = (call(node, aten.transpose.int, n, -2, -1) for n in (y, x))
    return call(node, aten.transpose.int, call(node, aten.matmul.default, row, turned), -2, -1)


REWRITES: dict[object, Callable[..., fx.Node | None]] = {
    aten.relu6.default: _relu6,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad_with,
    aten.conv2d.padding: _padded_conv,
    aten.add.Tensor: _add,
    aten.sub.Tensor: _add,
    aten.addcmul.default: _addcmul,
    aten.rsub.Scalar: _reversed_sub,
    aten.rsub.Tensor: _reversed_sub,
    aten.mean.dim: _mean,
    aten.mean.default: lambda node, x, dtype=None: _mean(node, x, None, dtype=dtype),
    aten.expand.default: _expand,
    aten.matmul.default: _product,
    aten.mm.default: _product,
    aten.bmm.default: _thin_product,
    aten.repeat.default: _repeat,
    aten.tile.default: _repeat,
    **PLAIN,
}
"""Ops whose arguments change with the name; a function answers None to leave the node."""


def _clamp_before_pool(node: fx.Node) -> None:
    """clamp(max_pool(x)) = max_pool(clamp(x)): behind an op with weights the clamp costs nothing.

    Behind a pool the TFLite converter merges the two, and then finds that the codes of a pool may not change.
    """
    pool: Any = node.args[0]
    if pool.target is aten.max_pool2d.default and len(pool.users) == 1:
        clamped = call(pool, node.target, pool.args[0], *node.args[1:])
        clamped.meta.update(pool.args[0].meta, layer=node.meta.get("layer", ""))
        pool.update_arg(0, clamped)
        replace(node, pool)


def _turn_before_expand(node: fx.Node) -> None:
    """permute(expand(x)) = expand(permute(x)), which its readers may stretch themselves; litert-torch 0.10 takes a
    turn of what it has stretched for a reshape, and answers wrongly (BoTNet's relative positions)."""
    expanded: Any = node.args[0]
    if expanded.target is not aten.expand.default or len(shape_of(expanded)) != len(shape_of(expanded.args[0])):
        return
    turned = call(node, node.target, expanded.args[0], *node.args[1:])
    if all(_stretches(user, node, turned) for user in node.users):
        replace(node, turned)
        return
    again = call(node, aten.expand.default, turned, shape_of(node))
    again.meta.update(node.meta)
    replace(node, again)
