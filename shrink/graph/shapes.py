"""Shapes and dtypes of every value, written into the nodes' meta by one run."""

from __future__ import annotations

import torch
from torch import Tensor, fx


def annotate_shapes(graph_module: fx.GraphModule, example: Tensor) -> None:
    """Write `shape` and `dtype` into the meta of every tensor node by running the graph on `example`."""
    _Shapes(graph_module).run(example)


def input_shape(graph_module: fx.GraphModule) -> tuple[int, ...]:
    """Shape of the one image input, (1, C, H, W)."""
    image = next(node for node in graph_module.graph.nodes if node.op == "placeholder")
    shape: tuple[int, ...] = image.meta["shape"]
    return shape


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> object:
        with torch.no_grad():
            value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta["shape"], n.meta["dtype"] = tuple(value.shape), value.dtype
        return value
