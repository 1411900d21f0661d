"""Rewrites of activations, norms and products of two activations into ops that a runtime computes in int8."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from shrink.graph.edit import add_constant, call, constant, scalar_like

aten = torch.ops.aten


def _six_times_hard_sigmoid(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    three = scalar_like(graph_module, node, f"{node.name}_three", 3.0)
    return call(node, aten.hardtanh.default, call(node, aten.add.Tensor, node.args[0], three), 0.0, 6.0)


def hard_sigmoid(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """relu6(x + 3) / 6: XNNPACK has no hard-sigmoid, and takes add, clamp and multiply in int8."""
    sixth = scalar_like(graph_module, node, f"{node.name}_sixth", 1.0 / 6.0)
    return call(node, aten.mul.Tensor, _six_times_hard_sigmoid(graph_module, node), sixth)


def hard_swish(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x * relu6(x + 3) / 6: XNNPACK runs HARD_SWISH in float only."""
    sixth = scalar_like(graph_module, node, f"{node.name}_sixth", 1.0 / 6.0)
    product = call(node, aten.mul.Tensor, node.args[0], _six_times_hard_sigmoid(graph_module, node))
    return call(node, aten.mul.Tensor, product, sixth)


def silu(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x * sigmoid(x): both are int8 in XNNPACK."""
    return call(node, aten.mul.Tensor, node.args[0], call(node, aten.sigmoid.default, node.args[0]))


def number_to_tensor(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Write a number operand as a constant, so that it can be given codes; a division as a product."""
    position = next((i for i, arg in enumerate(node.args[:2]) if isinstance(arg, (int, float))), None)
    if position is None or node.kwargs or node.meta.get("dtype") is not torch.float32:
        return None
    args: list[Any] = list(node.args[:2])
    number = float(args[position])
    target = node.target
    if target is aten.div.Tensor:
        if position == 0:
            return None
        number, target = 1.0 / number, aten.mul.Tensor
    args[position] = scalar_like(graph_module, node, f"{node.name}_number", number)
    return call(node, target, *args)


def attention(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """softmax(q k^T / sqrt(d)) v, Vaswani et al. 2017; the scale goes onto q, the smaller tensor.

    Images and heads become one dimension where no mask tells them apart: a converter whose products know but one copies
    the scores to join the two and to part them again.
    """
    args: tuple[Any, ...] = node.args
    options: dict[str, Any] = node.kwargs
    query, key, value, *rest = args
    mask = rest[0] if rest else options.get("attn_mask")
    causal = rest[2] if len(rest) > 2 else options.get("is_causal", False)
    if causal or options.get("enable_gqa", False) or (mask is not None and mask.meta["dtype"] == torch.bool):
        return None
    scale = options.get("scale") or query.meta["shape"][-1] ** -0.5
    factor = scalar_like(graph_module, node, f"{node.name}_scale", scale)
    heads, *others = (part.meta["shape"][:-2] for part in (query, key, value))
    query = call(node, aten.mul.Tensor, query, factor)
    if joined := mask is None and len(heads) > 1 and others == [heads, heads]:
        query, key, value = (call(node, aten.flatten.using_ints, part, 0, -3) for part in (query, key, value))
    scores = call(node, aten.matmul.default, query, call(node, aten.transpose.int, key, -2, -1))
    if mask is not None:
        scores = call(node, aten.add.Tensor, scores, mask)
    result = call(node, aten.matmul.default, call(node, aten.softmax.int, scores, -1), value)
    return call(node, aten.reshape.default, result, list(node.meta["shape"])) if joined else result


def last_softmax(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A softmax over another axis than the last, with that axis moved there and back.

    TFLite's softmax knows the last axis only. The converter writes the others op by op, among them a maximum with minus
    infinity, which in an int8 file gets codes, and answers nonsense.
    """
    args: tuple[Any, ...] = node.args
    source, axis, rank = args[0], args[1], len(node.meta["shape"])
    if axis % rank == rank - 1:
        return None
    order = [*(i for i in range(rank) if i != axis % rank), axis % rank]
    moved = call(node, aten.softmax.int, call(node, aten.permute.default, source, order), -1)
    return call(node, aten.permute.default, moved, [order.index(i) for i in range(rank)])


def layer_norm(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """(x - mean) / sqrt(variance + eps) * weight + bias, op by op: no runtime has it in integers."""
    given: tuple[Any, ...] = node.args
    source, sizes, weight, bias, eps = given[:5] + (None, None, 1e-5)[len(given) - 2 :]
    axes = list(range(-len(sizes), 0))
    rank = len(node.meta["shape"])
    centred = call(node, aten.sub.Tensor, source, call(node, aten.mean.dim, source, axes, True))
    variance = call(node, aten.mean.dim, call(node, aten.mul.Tensor, centred, centred), axes, True)
    shifted = call(node, aten.add.Tensor, variance, scalar_like(graph_module, node, f"{node.name}_eps", eps))
    result = call(node, aten.mul.Tensor, centred, call(node, aten.rsqrt.default, shifted))
    for op, part in ((aten.mul.Tensor, weight), (aten.add.Tensor, bias)):
        if part is not None:
            with node.graph.inserting_before(node):
                value = constant(graph_module, part).reshape((1,) * (rank - len(sizes)) + tuple(sizes))
                number = add_constant(graph_module, f"{node.name}_affine", value)
            result = call(node, op, result, number)
    return result
