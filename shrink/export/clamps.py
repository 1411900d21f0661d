"""Clamps between codes that the codes themselves carry out."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed
from torch import fx

from shrink.graph.clamps import CLAMPS, clamp_ends
from shrink.graph.edit import copied, replace

quantized = torch.ops.quantized_decomposed


def without_clamps(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy without the clamps from codes to codes that reach no further than the clamp's ends.

    XNNPACK fuses a clamp into the op before it, but if something else reads that op's answer, the clamp
    stands alone, and there it has none in int8. Changing the scale of codes it has.
    """
    result = copied(graph_module)
    for node in list(result.graph.nodes):
        if node.target in CLAMPS and _is_carried_out(node):
            replace(node, node.args[0])
    result.recompile()
    return result


def _is_carried_out(node: fx.Node) -> bool:
    source, (low, high) = node.args[0], clamp_ends(node)
    readers = list(node.users)
    if getattr(source, "target", None) is not quantized.dequantize_per_tensor.default or len(readers) != 1:
        return False
    if readers[0].target is not quantized.quantize_per_tensor.default:
        return False
    written: tuple[Any, ...] = readers[0].args
    scale, zero, least, most = written[1:5]
    slack = scale / 2  # no number within the ends is then rounded to another code
    return bool((least - zero) * scale >= low - slack / 1e3 and (most - zero) * scale <= high + slack)
