"""Clamps between codes that the codes themselves carry out."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import fx

from shrink.graph.clamps import CLAMPS, clamp_ends
from shrink.graph.edit import call, copied, scalar_like

aten, quantized = torch.ops.aten, torch.ops.quantized_decomposed


def without_clamps(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy without clamps from codes to codes that stand alone.

    XNNPACK fuses a clamp into the op before it, but if something else reads that op's answer, or it only moves numbers,
    the clamp stands alone, and there it has none in int8. Codes that reach no further than the clamp's ends need none:
    changing the scale of codes it has. Before others the clamp is fused into a sum with 0.
    """
    result = copied(graph_module)
    for node in [node for node in result.graph.nodes if node.target in CLAMPS and _is_codes(node.args[0])]:
        for reader in [user for user in node.users if user.target is quantized.quantize_per_tensor.default]:
            if _carries_out(reader, clamp_ends(node)):
                reader.update_arg(0, node.args[0])
            else:
                sum_ = _plus_zero(result, reader, node.args[0])
                reader.update_arg(0, call(reader, node.target, sum_, *node.args[1:]))
        if not node.users:
            result.graph.erase_node(node)
    result.recompile()
    return result


def _is_codes(node: Any) -> bool:
    return getattr(node, "target", None) is quantized.dequantize_per_tensor.default


def _carries_out(reader: fx.Node, ends: tuple[float, float]) -> bool:
    written: tuple[Any, ...] = reader.args
    scale, zero, least, most = written[1:5]
    slack = scale / 2  # no number within the ends is then rounded to another code
    return bool((least - zero) * scale >= ends[0] - slack / 1e3 and (most - zero) * scale <= ends[1] + slack)


def _plus_zero(graph_module: fx.GraphModule, at: fx.Node, source: Any) -> fx.Node:
    codes = source.args[1:]
    zero = scalar_like(graph_module, at, "zero", 0.0, source)
    held = call(at, quantized.quantize_per_tensor.default, zero, *codes)
    return call(at, aten.add.Tensor, source, call(at, quantized.dequantize_per_tensor.default, held, *codes))
