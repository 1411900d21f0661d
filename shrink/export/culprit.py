"""Name the op that a converter cannot write.

Converters fail somewhere inside themselves, with words of their own. So after a failure every kind
of op in the graph is converted alone, the rare ones first, until one fails alone too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from shrink.errors import LoweringError
from shrink.graph.edit import constant, is_constant

Convert = Callable[[fx.GraphModule, tuple[Tensor, ...]], object]


def lowering_error(
    graph_module: fx.GraphModule, convert: Convert, form: str, fix: str, error: Exception
) -> LoweringError:
    """The error to raise for a graph that could not be converted.

    Args:
        graph_module: the graph, with shapes in its meta.
        convert: converts a small graph with these example inputs, or raises.
        form: name of the format, for the message.
        fix: what the user can do.
        error: what the converter said.
    """
    node = find_culprit(graph_module, convert)
    if node is None:
        return LoweringError(f"the graph cannot be written as {form}", first_line(error), fix)
    layer = node.meta.get("layer") or node.name
    return LoweringError(f"{node.target} in layer {layer!r} cannot be written as {form}", first_line(error), fix)


def first_line(error: Exception) -> str:
    """The converter's first words, without the colours meant for a terminal."""
    lines = (line.strip() for line in str(error).split("\n"))
    text = next((line for line in lines if line), type(error).__name__)
    return "".join(c for c in text.replace("\x1b[96m", "").replace("\x1b[0m", "") if c.isprintable())[:300]


def find_culprit(graph_module: fx.GraphModule, convert: Convert) -> fx.Node | None:
    """The first node of a kind that cannot be converted alone; None if each can."""
    first_of_kind: dict[object, fx.Node] = {}
    count: dict[object, int] = {}
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and "quantize" not in str(node.target):  # these make sense in pairs only
            first_of_kind.setdefault(node.target, node)
            count[node.target] = count.get(node.target, 0) + 1
    for node in sorted(first_of_kind.values(), key=lambda n: count[n.target]):
        alone = _alone(graph_module, node)
        if alone is None:
            continue
        try:
            convert(*alone)
        except Exception:  # the border to the converter, as in the printers
            return node
    return None


def _alone(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.GraphModule, tuple[Tensor, ...]] | None:
    """A graph of this one op, and zeros for its inputs; None if an input is no tensor."""
    inputs = [n for n in node.all_input_nodes if not is_constant(n)]
    if not inputs or any("shape" not in n.meta for n in inputs):
        return None
    graph = fx.Graph()
    known = {n: graph.placeholder(n.name) for n in inputs}
    root = torch.nn.Module()
    for n in node.all_input_nodes:
        if is_constant(n):
            root.register_buffer(n.name, constant(graph_module, n))
            known[n] = graph.get_attr(n.name)
    graph.output(graph.node_copy(node, lambda n: known[n]))
    return fx.GraphModule(root, graph), tuple(torch.zeros(n.meta["shape"], dtype=n.meta["dtype"]) for n in inputs)
