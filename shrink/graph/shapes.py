"""Shapes and dtypes of values, as the meta of their nodes has them: found by one run, or one by one without any."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

aten = torch.ops.aten


def annotate_shapes(graph_module: fx.GraphModule, example: Tensor) -> None:
    """Write `shape` and `dtype` into the meta of every tensor node by running the graph on `example`."""
    _Shapes(graph_module).run(example)


def input_shape(graph_module: fx.GraphModule) -> tuple[int, ...]:
    """Shape of the one image input, (1, C, H, W)."""
    image = next(node for node in graph_module.graph.nodes if node.op == "placeholder")
    shape: tuple[int, ...] = image.meta["shape"]
    return shape


def shape_of(node: fx.Node) -> list[int]:
    """As a rewrite or the trace has it."""
    return list(node.meta["shape"] if "shape" in node.meta else node.meta["val"].shape)


def size_of(node: fx.Node) -> int:
    """How many numbers the value has."""
    return math.prod(shape_of(node))


def order_of(node: fx.Node) -> list[int]:
    """For each axis of a permute or transpose the axis of its input that it was."""
    axes: list[Any] = list(range(len(shape_of(node))))
    if node.target is aten.permute.default:
        given: Any = node.args[1]
        return [axis % len(axes) for axis in given]
    a, b = (int(axis) for axis in node.args[1:3])  # type: ignore[arg-type]
    axes[a], axes[b] = axes[b], axes[a]
    return axes


def result_of(call: fx.Node) -> Mapping[str, Any]:
    """`shape` and `dtype` of what an op gives, without computing it; nothing if that is no tensor, or if those of an
    operand are not known."""
    if not all("val" in node.meta or "shape" in node.meta for node in call.all_input_nodes):
        return {}
    with FakeTensorMode():
        args, kwargs = fx.node.map_arg((call.args, call.kwargs), _empty)
        value = call.target(*args, **kwargs)  # type: ignore[operator]
    return {"shape": tuple(value.shape), "dtype": value.dtype} if isinstance(value, Tensor) else {}


def _empty(node: fx.Node) -> Tensor:
    """A tensor of the same shape and dtype."""
    dtype = node.meta["dtype"] if "dtype" in node.meta else node.meta["val"].dtype
    return torch.empty(shape_of(node), dtype=dtype)


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> object:
        with torch.no_grad():
            value = super().run_node(n)
        if isinstance(value, Tensor):
            n.meta["shape"], n.meta["dtype"] = tuple(value.shape), value.dtype
        return value
