"""Small verbs on a graph: read a constant, add one, replace a node, emit a call."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.convolution import times_inputs
from shrink.graph.shapes import result_of

DYNAMIC = "dynamic"
"""Key in a node's meta: its input is quantized at run time, per "row" or over the whole "tensor".

Printers and the simulation read it.
"""

NOTHING = 1e-15
"""Added to numbers it changes none above 2e-8; nor is its square subnormal, which would be slow."""

KEEP_FLOAT = "keep_float"
"""Key in a node's meta: it must not be computed in int8."""
FIXED_RANGE = "fixed_range"
"""Key in a node's meta: (low, high) that its values have by construction, whatever calibration sees."""


def copied(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Another graph over the same weights: passes add constants, they never write into one."""
    shared = {id(tensor): tensor for tensor in (*graph_module.parameters(), *graph_module.buffers())}
    return copy.deepcopy(graph_module, shared)


def telling(graph_module: fx.GraphModule, names: tuple[str, ...]) -> fx.GraphModule:
    """A graph over the same weights whose output is its scores, and then the values of these nodes."""
    told = copied(graph_module)
    nodes = {node.name: node for node in told.graph.nodes}
    output = told.graph.output_node()
    output.args = ((output.args[0], *(nodes[name] for name in names)),)
    told.recompile()
    return told


def is_constant(node: object) -> bool:
    """Whether `node` reads a weight or constant of the module."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def constant(graph_module: fx.GraphModule, node: object) -> Tensor:
    """The tensor behind a `get_attr` node, detached."""
    assert isinstance(node, fx.Node) and node.op == "get_attr", node
    owner, _, leaf = str(node.target).rpartition(".")
    value = getattr(graph_module.get_submodule(owner), leaf)
    assert isinstance(value, Tensor), node
    return value.detach()


def add_constant(graph_module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """Register `value` as a buffer under a free name near `name` and read it at the insertion point."""
    base = re.sub(r"\W", "_", name)
    free = base
    number = 0
    while hasattr(graph_module, free):
        number += 1
        free = f"{base}_{number}"
    graph_module.register_buffer(free, value.detach())
    node = graph_module.graph.get_attr(free)
    node.meta.update(shape=tuple(value.shape), dtype=value.dtype)
    return node


def scale_outputs(graph_module: fx.GraphModule, node: fx.Node, factors: Tensor, *, first: int = 1) -> None:
    """Let an op give what it gave times (O,): its weights are argument `first`, its bias, if it has one, the next.

    A norm may have no weights, which stands for ones.
    """
    node.args = (*node.args, None)[: max(first + 1, len(node.args))]
    for index in range(first, min(first + 2, len(node.args))):
        if is_constant(node.args[index]):
            value = constant(graph_module, node.args[index])
            set_constant(graph_module, node, index, value * factors.reshape(-1, *[1] * (value.dim() - 1)))
        elif index == first:
            set_constant(graph_module, node, index, factors)


def scale_inputs(graph_module: fx.GraphModule, node: fx.Node, factors: Tensor) -> None:
    """Let a convolution or linear answer as if its input channels were multiplied by (C,)."""
    set_constant(graph_module, node, 1, times_inputs(node, constant(graph_module, node.args[1]), factors))


def add_to_bias(graph_module: fx.GraphModule, node: fx.Node, shift: Tensor) -> None:
    """Let a convolution or linear give what it gave plus (O,); it has a bias then, if it had none."""
    node.args = (*node.args, None)[: max(3, len(node.args))]
    before = 0.0 if node.args[2] is None else constant(graph_module, node.args[2])
    with node.graph.inserting_before(node):
        node.update_arg(2, add_constant(graph_module, f"{node.name}_bias", before + shift))


def set_constant(graph_module: fx.GraphModule, node: fx.Node, index: int, value: Tensor) -> None:
    """Let an argument of a node, and of no other, be that constant."""
    with node.graph.inserting_before(node):
        node.update_arg(index, add_constant(graph_module, f"{node.name}_scaled", value))


def replace(node: fx.Node, by: fx.Node) -> None:
    """Let every user of `node` read `by`, and erase `node`."""
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def call(at: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Insert a call before `at`, marked as coming from the same layer, with its shape and dtype in its meta."""
    with at.graph.inserting_before(at):
        node = at.graph.call_function(target, args, kwargs)
    node.meta.update(layer=at.meta.get("layer", ""), **result_of(node))
    return node


def scalar_like(
    graph_module: fx.GraphModule, at: fx.Node, name: str, value: float, other: fx.Node | None = None
) -> fx.Node:
    """A constant of one element, read before `at`, with the rank of that, or of its other operand if that is not alike.

    Formats take tensors where PyTorch takes numbers, and converters that change the layout follow
    a constant only when its rank is that of the other operand.
    """
    with at.graph.inserting_before(at):
        return add_constant(graph_module, name, torch.full((1,) * len((other or at).meta["shape"]), value))
