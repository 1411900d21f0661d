"""Spell the ops of a graph as ONNX Runtime computes them best, where the converter's own way is another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import fx

from shrink.export.onnx_turns import fast_turns, turned
from shrink.graph.convolution import convolution
from shrink.graph.edit import DYNAMIC, add_constant, call, constant, copied, replace
from shrink.graph.shapes import order_of

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed
OPSET = 21  # the first in which every 8-bit type of QuantizeLinear is settled


def spelled(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy with all of them."""
    result = copied(graph_module)
    for write_in in (_integer_linears, _global_pools, _group_norms, _padded_convolutions, _turns):
        write_in(result)
    result.graph.eliminate_dead_code()
    result.recompile()
    return result


def _integer_linears(graph_module: fx.GraphModule) -> None:
    """Spell quantized linears so that ONNX Runtime fuses them, in place.

    It does so for a weight of codes (K, O) that MatMul reads straight from DequantizeLinear; the
    transpose a PyTorch linear (O, K) would leave between the two makes it dequantize on every run.
    """
    for node in list(graph_module.graph.nodes):
        if not _is_integer_linear(node):
            continue
        codes, scales = (constant(graph_module, n) for n in node.args[1].args[:2])  # of dequantize_per_channel
        with graph_module.graph.inserting_before(node):
            weight = add_constant(graph_module, f"{node.name}_matrix", codes.t().contiguous())
            scale = add_constant(graph_module, f"{node.name}_scales", scales)
        bias = node.args[2] if len(node.args) > 2 else None
        if granularity := node.meta.get(DYNAMIC):
            _spell(node, SPELLINGS[granularity], node.args[0], weight, scale, bias)
        else:
            source, step, zero, *_ = node.args[0].args  # of dequantize_per_tensor
            _spell(node, static_linear, source, weight, scale, bias, step, zero)


def _spell(node: fx.Node, by: Callable[..., torch.Tensor], *args: Any) -> None:
    """Replace a node by a call that gives the same."""
    new = call(node, by, *args)
    new.meta.update(node.meta)
    replace(node, new)


def _global_pools(graph_module: fx.GraphModule) -> None:
    """Spell means over all places as pools, in place: those ONNX Runtime computes on codes."""
    for node in list(graph_module.graph.nodes):
        if node.target is aten.mean.dim and _is_global_pool(*node.args):
            _spell(node, global_pool, node.args[0])


def _is_global_pool(x: fx.Node, axes: Sequence[int] | None, keepdim: bool = False) -> bool:
    rank = len(x.meta["shape"])
    return keepdim and rank == 4 and axes is not None and sorted(axis % rank for axis in axes) == [2, 3]


def global_pool(x: torch.Tensor) -> torch.Tensor:
    """GlobalAveragePool of (N, C, H, W), (N, C, 1, 1)."""
    shape = (*x.shape[:2], 1, 1)
    pooled: torch.Tensor = torch.onnx.ops.symbolic("GlobalAveragePool", (x,), dtype=x.dtype, shape=shape, version=OPSET)
    return pooled


def _group_norms(graph_module: fx.GraphModule) -> None:
    """Spell group norms as norms of the instances that their groups are, in place.

    ONNX Runtime has no kernel for GroupNormalization on a CPU: it works out shapes and takes means op by op on every
    run, which takes 1.4 to 1.8 times as long.
    """
    for node in list(graph_module.graph.nodes):
        if node.target is aten.group_norm.default:
            _spell(node, group_norm, *node.args)


def group_norm(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> torch.Tensor:
    """InstanceNormalization of (N, groups, ...), then the affine part of (N, C, ...)."""
    grouped = x.reshape(x.shape[0], groups, -1)
    ones, zeros = torch.ones(groups), torch.zeros(groups)
    normed = torch.onnx.ops.symbolic(
        "InstanceNormalization", (grouped, ones, zeros), {"epsilon": eps}, dtype=x.dtype, shape=grouped.shape,
        version=OPSET,
    )  # fmt: skip
    answer: torch.Tensor = normed.reshape(x.shape)
    channels = (-1, *[1] * (x.dim() - 2))
    answer = answer if weight is None else answer * weight.reshape(channels)
    return answer if bias is None else answer + bias.reshape(channels)


def _padded_convolutions(graph_module: fx.GraphModule) -> None:
    """Let convolutions pad with zeros themselves, in place: ONNX knows a padding for each side.

    ONNX Runtime does so itself in a float file. On codes it copies every map into a larger one, which takes 0.9 of the
    5.5 ms of EfficientNet-Lite0 as TensorFlow pads it.
    """
    for node in list(graph_module.graph.nodes):
        if node.target is not aten.conv2d.default:
            continue
        conv = convolution(node)
        found = _unpadded(conv.x)
        if found is not None:
            x, (left, right, top, bottom) = found
            (high, wide), how = conv.padding, (conv.stride, conv.dilation, conv.groups)
            pads = (top + high, left + wide, bottom + high, right + wide)
            _spell(node, padded_conv2d, x, conv.weight, conv.bias, pads, *how)


def _unpadded(x: fx.Node) -> tuple[fx.Node, tuple[int, int, int, int]] | None:
    """What was padded with zeros around its places, and by how much; codes are taken of it as they were behind it."""
    if x.target is quantized.dequantize_per_tensor.default:
        codes = x.args[0]
        if not isinstance(codes, fx.Node) or codes.target is not quantized.quantize_per_tensor.default:
            return None
        found = _unpadded(codes.args[0]) if isinstance(codes.args[0], fx.Node) else None
        if found is None:
            return None
        source, pads = found
        if source.target is x.target and source.args[1:] == x.args[1:]:
            return source, pads
        return call(x, x.target, call(x, codes.target, source, *codes.args[1:]), *x.args[1:]), pads
    if x.target is not aten.constant_pad_nd.default:
        return None
    args: tuple[Any, ...] = x.args
    source, pads, *value = args
    if any(value) or min(pads) < 0 or any(pads[4:]) or len(source.meta["shape"]) != 4:
        return None
    left, right, top, bottom = [*pads, 0, 0, 0, 0][:4]
    return source, (left, right, top, bottom)


def padded_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pads: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """Conv of (N, C, H, W) with zeros above, on the left, below and on the right of it."""
    places = [
        (size + pads[axis] + pads[axis + 2] - dilation[axis] * (kernel - 1) - 1) // stride[axis] + 1
        for axis, (size, kernel) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=True))
    ]
    how: dict[str, Any] = {"pads": [*pads], "strides": [*stride], "dilations": [*dilation], "group": groups}
    given = (x, weight) if bias is None else (x, weight, bias)
    shape = (x.shape[0], weight.shape[0], *places)
    answer: torch.Tensor = torch.onnx.ops.symbolic("Conv", given, how, dtype=x.dtype, shape=shape, version=OPSET)
    return answer


def _turns(graph_module: fx.GraphModule) -> None:
    """Turn axes in steps that ONNX Runtime takes fast, in place."""
    for node in list(graph_module.graph.nodes):
        if node.target in (aten.permute.default, aten.transpose.int):
            source, shape = node.args[0], node.args[0].meta["shape"]
            if turns := fast_turns(shape, order_of(node)):
                _spell(node, turned, source, turns, node.meta["shape"])


def _is_integer_linear(node: fx.Node) -> bool:
    weight = node.args[1] if node.target is aten.linear.default else None
    return isinstance(weight, fx.Node) and "dequantize_per_channel" in str(weight.target)


def static_linear(
    codes: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None,
    step: float,
    zero: int,
) -> torch.Tensor:
    """MatMulInteger of codes (..., K) with a fixed step and zero point; the rest as in `dynamic_linear`.

    A MatMul between DequantizeLinear nodes becomes an integer product only if its result goes straight
    to a QuantizeLinear, which a bias prevents.
    """
    middle = torch.full((), zero, dtype=codes.dtype)
    shape = (*codes.shape[:-1], weight.shape[1])
    product = torch.onnx.ops.symbolic(
        "MatMulInteger", (codes, weight, middle), dtype=torch.int32, shape=shape, version=OPSET
    )
    answer = product.to(torch.float32) * (step * scales)
    return answer if bias is None else answer + bias


def dynamic_linear(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """DynamicQuantizeLinear, MatMulInteger and a product: ONNX Runtime fuses them into one kernel.

    Args:
        x: (..., K) float32.
        weight: (K, O) int8 codes.
        scales: (O,) of the weight.
        bias: (O,) or None.
    """
    codes, scale, zero = torch.onnx.ops.symbolic_multi_out(
        "DynamicQuantizeLinear",
        (x,),
        dtypes=(torch.uint8, torch.float32, torch.uint8),
        shapes=(x.shape, (), ()),
        version=OPSET,
    )
    shape = (*x.shape[:-1], weight.shape[1])
    product = torch.onnx.ops.symbolic(
        "MatMulInteger", (codes, weight, zero), dtype=torch.int32, shape=shape, version=OPSET
    )
    answer = product.to(torch.float32) * (scale * scales)
    return answer if bias is None else answer + bias


def row_linear(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A range for each row of x, as `round_dynamic` of the simulation takes it; shapes as in `dynamic_linear`.

    The products of the zero points, which differ from row to row, are subtracted afterwards.
    """
    low = x.amin(-1, keepdim=True).clamp_max(0)
    step = ((x.amax(-1, keepdim=True).clamp_min(0) - low) / 255).clamp_min(2.0**-23)
    zero = torch.round(-low / step)
    one, none = torch.full((), 1.0), torch.full((), 0, dtype=torch.uint8)
    codes = torch.onnx.ops.symbolic(
        "QuantizeLinear", (x / step + zero, one, none), dtype=torch.uint8, shape=x.shape, version=OPSET
    )
    shape = (*x.shape[:-1], weight.shape[1])
    product = torch.onnx.ops.symbolic(
        "MatMulInteger", (codes, weight, none), dtype=torch.int32, shape=shape, version=OPSET
    )
    answer = (product.to(torch.float32) - zero * weight.to(torch.float32).sum(0)) * step * scales
    return answer if bias is None else answer + bias


SPELLINGS = {"tensor": dynamic_linear, "row": row_linear}
