"""Run a quantized graph in PyTorch as the runtime will, dynamic linears included."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from shrink.graph.edit import DYNAMIC, call, copied
from shrink.quantize.codes import HIGH, LOW, SMALLEST_SCALE


def simulation(quantized: fx.GraphModule) -> fx.GraphModule:
    """A copy of a graph written by `apply` in which dynamic ops round their input as the runtime does."""
    result = copied(quantized)
    for node in list(result.graph.nodes):
        if granularity := node.meta.get(DYNAMIC):
            rows = granularity == "row" and node.target is torch.ops.aten.linear.default
            node.update_arg(0, call(node, round_dynamic, node.args[0], rows))
    result.recompile()
    return result


def round_dynamic(x: Tensor, rows: bool) -> Tensor:
    """Round to the 256 asymmetric codes that cover a row (..., K) or the whole tensor, and 0."""
    dims = (-1,) if rows else tuple(range(x.dim()))
    low = x.amin(dims, keepdim=True).clamp_max(0)
    scale = ((x.amax(dims, keepdim=True).clamp_min(0) - low) / (HIGH - LOW)).clamp_min(SMALLEST_SCALE)
    zero = torch.round(LOW - low / scale)
    return ((x / scale + zero).round().clamp(LOW, HIGH) - zero) * scale
