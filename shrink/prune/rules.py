"""What each op does to channels: one row per op, from the labels of its inputs to the labels of its output.

A rule ties labels that must go together, freezes those that must stay, and answers the labels of the output,
one entry per dimension. An op without a row freezes all that reaches it, so a missing row costs
compression and never a wrong answer.
"""

from __future__ import annotations

import operator

import torch

from shrink.prune import rules_compute as compute
from shrink.prune import rules_shape as shape
from shrink.prune.trace import Rule

aten = torch.ops.aten


def _rows(rule: Rule, names: str) -> dict[object, Rule]:
    """One rule for several overloads, such as "add.Tensor sub.Tensor"."""
    pairs = (name.split(".") for name in names.split())
    return {getattr(getattr(aten, packet), overload): rule for packet, overload in pairs}


RULES: dict[object, Rule] = {
    operator.getitem: shape.item,
    **_rows(
        compute.elementwise,
        """
        add.Tensor sub.Tensor mul.Tensor div.Tensor add.Scalar mul.Scalar div.Scalar sub.Scalar pow.Tensor_Scalar
        maximum.default minimum.default neg.default abs.default exp.default sqrt.default rsqrt.default square.default
        reciprocal.default relu.default hardtanh.default clamp.default clamp_min.default gelu.default silu.default
        sigmoid.default tanh.default hardsigmoid.default hardswish.default elu.default leaky_relu.default mish.default
        softplus.default clone.default _to_copy.default where.self masked_fill.Scalar logical_not.default eq.Scalar
        ne.Scalar
        """,
    ),
    **_rows(
        compute.spatial,
        """
        adaptive_avg_pool2d.default avg_pool2d.default max_pool2d.default adaptive_max_pool2d.default
        upsample_bilinear2d.vec upsample_nearest2d.vec upsample_bicubic2d.vec upsample_bilinear2d.default
        upsample_nearest2d.default
        """,
    ),
    **_rows(compute.reduction, "mean.dim amax.default amin.default var.correction"),
    **_rows(compute.total, "sum.dim_IntList"),
    **_rows(compute.length, "linalg_vector_norm.default"),
    **_rows(compute.normalized, "softmax.int _softmax.default log_softmax.int"),
    **_rows(compute.layer_norm, "layer_norm.default"),
    **_rows(compute.group_norm, "group_norm.default"),
    **_rows(compute.conv, "conv2d.default"),
    **_rows(compute.linear, "linear.default"),
    **_rows(compute.matmul, "matmul.default bmm.default"),
    **_rows(compute.attention, "scaled_dot_product_attention.default"),
    **dict.fromkeys(shape.RESHAPES, shape.reshape),
    **_rows(shape.permute, "permute.default"),
    **_rows(shape.transpose, "transpose.int"),
    **_rows(shape.expand, "expand.default"),
    **_rows(shape.slice_, "slice.Tensor"),
    **_rows(shape.select, "select.int"),
    **_rows(shape.split, "split.Tensor split_with_sizes.default chunk.default"),
    **_rows(shape.unbind, "unbind.int"),
    **_rows(shape.cat, "cat.default"),
    **_rows(shape.stack, "stack.default"),
    **_rows(shape.pad, "constant_pad_nd.default"),
    **_rows(shape.roll, "roll.default"),
}
