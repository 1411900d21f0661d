"""Multiply-accumulates of an op from its shapes: one row per op and format.

A row gets the shapes of the inputs, the shape of the output and the op's own settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

Shape = tuple[int, ...]
Settings = Mapping[str, Any]
Count = Callable[[list[Shape], Shape, Settings], int]


def _contract(lhs: int) -> Count:
    """Matrix product: every output sums over the last axis of the left side, or the one before if it is transposed."""

    def count(inputs: list[Shape], out: Shape, settings: Settings) -> int:
        side = inputs[lhs]
        axis = -2 if settings.get("transposed") and len(side) > 1 else -1
        return prod(out) * side[axis]

    return count


def _window(weights: int) -> Count:
    """ONNX convolution, weights (out, in / groups, *kernel): every output sums over one filter."""
    return lambda inputs, out, _: prod(out) * prod(inputs[weights][1:])


def _einsum(inputs: list[Shape], _: Shape, settings: Settings) -> int:
    sides: dict[str, int] = {}
    terms = str(settings.get("equation", "")).replace(" ", "").split("->")[0].split(",")
    for term, shape in zip(terms, inputs, strict=False):
        if len(term) != len(shape):  # an ellipsis
            return 0
        sides |= dict(zip(term, shape, strict=True))
    return prod(sides.values()) if len(terms) == 2 else 0


def _fused_attention(inputs: list[Shape], _: Shape, __: Settings) -> int:
    """Input (batch, tokens, width), weights (width, 3 * hidden): the projection and two products of tokens."""
    (batch, tokens, width), hidden3 = inputs[0], inputs[1][-1]
    return batch * tokens * width * hidden3 + 2 * batch * tokens * tokens * (hidden3 // 3)


def _attention(inputs: list[Shape], out: Shape, _: Settings) -> int:
    """Query, key, value with tokens on the axis before the last: scores, then their product with the values."""
    query, key = inputs[0], inputs[1]
    return prod(query) * key[-2] + prod(out) * key[-2]


TFLITE: dict[str, Count] = {
    "CONV_2D": lambda inputs, out, _: prod(out) * prod(inputs[1][1:]),  # weights (out, h, w, in / groups)
    "CONV_3D": lambda inputs, out, _: prod(out) * prod(inputs[1][:-1]),  # weights (d, h, w, in, out)
    "DEPTHWISE_CONV_2D": lambda inputs, out, _: prod(out) * prod(inputs[1][1:3]),  # weights (1, h, w, channels)
    "FULLY_CONNECTED": lambda inputs, out, _: prod(out) * inputs[1][-1],  # weights (out, in)
    "TRANSPOSE_CONV": lambda inputs, _, __: prod(inputs[2]) * prod(inputs[1][:3]),  # weights (out, h, w, in)
    "BATCH_MATMUL": _contract(0),
}

ONNX: dict[str, Count] = {
    "Conv": _window(1), "FusedConv": _window(1), "ConvInteger": _window(1), "QLinearConv": _window(3),
    "ConvTranspose": lambda inputs, _, __: prod(inputs[0]) * prod(inputs[1][1:]),  # weights (in, out / groups, *kernel)
    "Gemm": _contract(0), "FusedGemm": _contract(0), "QGemm": _contract(0),
    "MatMul": _contract(0), "FusedMatMul": _contract(0), "MatMulInteger": _contract(0), "QLinearMatMul": _contract(0),
    "MatMulIntegerToFloat": _contract(0), "DynamicQuantizeMatMul": _contract(0), "MatMulNBits": _contract(0),
    "Einsum": _einsum, "Attention": _attention, "MultiHeadAttention": _attention,
    "com.microsoft.Attention": _fused_attention, "QAttention": _fused_attention,
}  # fmt: skip
