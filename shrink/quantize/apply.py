"""Write a plan into a copy of the graph as quantize and dequantize nodes.

The nodes are PyTorch's `quantized_decomposed` ops, which both converters read and which run in
PyTorch, so the quantized graph can be judged before it is a file.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx

from shrink.graph.clamps import CLAMPS
from shrink.graph.edit import (
    DYNAMIC,
    NOTHING,
    add_constant,
    add_to_bias,
    call,
    constant,
    copied,
    scalar_like,
    set_constant,
)
from shrink.quantize.codes import HIGH, LOW, WEIGHT_LIMIT, Affine, nearest_codes, weight_scales
from shrink.quantize.plan import Plan
from shrink.quantize.rounding import Rounded

quantized = torch.ops.quantized_decomposed
UNSIGNED_SHIFT = 128
WIDE_HIGH = 32767
MOST_BIAS = 2**30
"""Largest code of a bias, which is held in 32 bits at the scales of input and weight; the sum needs room, too."""


def apply(
    graph_module: fx.GraphModule,
    plan: Plan,
    *,
    unsigned: bool = False,
    pack_weights: bool = False,
    wide: bool = False,
) -> fx.GraphModule:
    """The quantized graph of `plan`; `graph_module` is left as it is.

    Args:
        graph_module: the lowered float graph the plan was made for.
        plan: what to quantize.
        unsigned: hold activations as uint8 codes, 128 higher; exact, and what ONNX Runtime likes on x86.
        wide: hold activations as symmetric 16-bit codes of the same ranges.
        pack_weights: keep weights as int8 constants instead of quantizing float ones in the graph.
    """
    result = copied(graph_module)
    nodes = {node.name: node for node in result.graph.nodes}
    for source, reader in plan.scheme.pulled:
        _stop_codes(result, nodes[source], nodes[reader])
    for name, codes in plan.codes.items():
        _hold(nodes[name], _wide(codes) if wide else _narrow(codes, unsigned), plan)
    for name in sorted(plan.scheme.static | plan.scheme.dynamic.keys()):
        node = nodes[name]
        if node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
            _quantize_weight(result, node, plan.rounded.get(name) or nearest(result, node), pack_weights)
        if name in plan.scheme.dynamic:
            node.meta[DYNAMIC] = "row" if name in plan.rows else "tensor"
    result.graph.lint()
    result.recompile()
    return result


def _narrow(codes: Affine, unsigned: bool) -> tuple[Any, ...]:
    """Scale, zero point, lowest and highest code, and dtype."""
    shift = UNSIGNED_SHIFT if unsigned else 0
    dtype = torch.uint8 if unsigned else torch.int8
    return codes.scale, codes.zero_point + shift, LOW + shift, HIGH + shift, dtype


def _wide(codes: Affine) -> tuple[Any, ...]:
    """The 16-bit codes that reach as far as the 8-bit ones."""
    reach = codes.scale * max(codes.zero_point - LOW, HIGH - codes.zero_point)
    return reach / WIDE_HIGH, 0, -WIDE_HIGH - 1, WIDE_HIGH, torch.int16


def _stop_codes(graph_module: fx.GraphModule, source: fx.Node, reader: fx.Node) -> None:
    """Put a sum in float, which the converter neither pulls codes through nor drops, before a reader."""
    nothing = scalar_like(graph_module, reader, f"{reader.name}_nothing", NOTHING, source)
    stop = call(reader, torch.ops.aten.add.Tensor, source, nothing)
    reader.replace_input_with(source, stop)


def _hold(node: fx.Node, args: tuple[Any, ...], plan: Plan) -> None:
    """Quantize and dequantize the output of `node` for the users that compute on codes.

    Where the node itself computes on codes its value exists in no other form, so all users read it.
    """
    readers = [user for user in node.users if node.name in plan.scheme.static or user.name in plan.scheme.static]
    told = {"layer": node.meta.get("layer", ""), "shape": node.meta["shape"], "dtype": torch.float32}
    with node.graph.inserting_after(node):
        to_codes = node.graph.call_function(quantized.quantize_per_tensor.default, (node, *args))
    to_codes.meta.update(told)
    for user in readers:  # one each: litert-torch 0.10 loses the shape of one that it has to transpose for two
        back = call(user, quantized.dequantize_per_tensor.default, to_codes, *args)
        back.meta.update(told)
        user.replace_input_with(node, back)


def nearest(graph_module: fx.GraphModule, node: fx.Node) -> Rounded:
    """Each weight to its nearest code."""
    weight = constant(graph_module, node.args[1])
    scales = weight_scales(weight)
    return Rounded(nearest_codes(weight.detach(), scales).to(torch.int8), scales, torch.zeros(len(scales)))


def _quantize_weight(graph_module: fx.GraphModule, node: fx.Node, rounded: Rounded, pack: bool) -> None:
    graph = graph_module.graph
    if rounded.bias.any():
        add_to_bias(graph_module, node, rounded.bias)
    rounded = _with_room_for_bias(graph_module, node, rounded)
    scales = rounded.scales
    _round_bias(graph_module, node, scales)
    with graph.inserting_before(node):
        scale = add_constant(graph_module, f"{node.name}_scale", scales)
        zero = add_constant(graph_module, f"{node.name}_zero", torch.zeros(len(scales), dtype=torch.int64))
        grid = (scale, zero, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT, torch.int8)
        if pack:
            codes = add_constant(graph_module, f"{node.name}_codes", rounded.codes)
        else:
            real = rounded.codes * scales.reshape(-1, *[1] * (rounded.codes.dim() - 1))
            weight = add_constant(graph_module, f"{node.name}_rounded", real)
            codes = graph.call_function(quantized.quantize_per_channel.default, (weight, *grid))
        back = graph.call_function(quantized.dequantize_per_channel.default, (codes, *grid))
    node.update_arg(1, back)


def _round_bias(graph_module: fx.GraphModule, node: fx.Node, scales: Tensor) -> None:
    """Put the bias of an op from codes to codes on those that the files hold it in, 32 bits, each worth a step of the
    input times one of the weights: up to a seventh of a step of the output, so that runtimes must not choose."""
    step = _input_step(node)
    if step is not None and _gives_codes(node) and len(node.args) > 2 and node.args[2] is not None:
        steps = scales.double() * step
        set_constant(graph_module, node, 2, ((constant(graph_module, node.args[2]) / steps).round() * steps).float())


def _gives_codes(node: fx.Node) -> bool:
    """Whether the output is held as codes, perhaps behind a clamp."""
    return any(
        user.target is quantized.quantize_per_tensor.default or (user.target in CLAMPS and _gives_codes(user))
        for user in node.users
    )


def _input_step(node: fx.Node) -> float | None:
    """Of the calibrated codes that a node reads; None: its ranges are of run time, and its bias stays float."""
    source: Any = node.args[0]
    return source.args[1] if source.target is quantized.dequantize_per_tensor.default else None


def _with_room_for_bias(graph_module: fx.GraphModule, node: fx.Node, rounded: Rounded) -> Rounded:
    """Coarser weights where the bias would not fit into its codes, as in a channel that a batch norm has shut.

    The weights of such a channel are nothing beside its bias: the answer changes by 1e-6 of it at most
    for each of its inputs.
    """
    step, bias = _input_step(node), node.args[2] if len(node.args) > 2 else None
    if bias is None or step is None:
        return rounded
    least = constant(graph_module, bias).abs() / (step * MOST_BIAS)
    scales = torch.maximum(rounded.scales, least)
    ratio = (rounded.scales / scales).reshape(-1, *[1] * (rounded.codes.dim() - 1))
    return Rounded((rounded.codes * ratio).round().to(torch.int8), scales, rounded.bias)
