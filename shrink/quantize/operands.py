"""The name of an op as the tables of targets have it, and which of its inputs are activations."""

from __future__ import annotations

from torch import fx

from shrink.graph.edit import is_constant
from shrink.targets import Target


def op_name(node: fx.Node) -> str:
    """The ATen overload without its namespace, such as `conv2d.default`; "" for other nodes."""
    return str(node.target).removeprefix("aten.") if node.op == "call_function" else ""


def operands(node: fx.Node, target: Target) -> list[fx.Node]:
    """The inputs of `node` that need codes of their own: all but the weights and bias of a compute op."""
    inputs = [node.args[0]] if op_name(node) in target.compute else node.all_input_nodes
    return [n for n in inputs if isinstance(n, fx.Node)]


def activations(node: fx.Node, target: Target) -> list[fx.Node]:
    """The operands that depend on the image."""
    return [n for n in operands(node, target) if not is_constant(n)]
