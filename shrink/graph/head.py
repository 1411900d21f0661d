"""A new classifier on a captured graph: the last linear layer, for other classes."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from shrink.errors import ModelError
from shrink.graph.edit import constant, copied, is_constant
from shrink.graph.shapes import annotate_shapes, input_shape

linear = torch.ops.aten.linear.default


def with_head(graph_module: fx.GraphModule, weight: Tensor, bias: Tensor) -> fx.GraphModule:
    """A copy whose last layer gives other scores.

    Args:
        weight: (classes, K), K as in the layer that is there.
        bias: (classes,).

    Raises:
        ModelError: the scores do not come straight from a linear layer.
    """
    result = copied(graph_module)
    head = find_head(result)
    with result.graph.inserting_before(head):
        parts = [_parameter(result, name, value) for name, value in (("head_weight", weight), ("head_bias", bias))]
    head.args = (head.args[0], *parts)
    result.graph.eliminate_dead_code()
    result.recompile()
    annotate_shapes(result, torch.zeros(input_shape(graph_module)))
    return result


def without_head(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy that gives what the last layer reads, (1, K)."""
    result = copied(graph_module)
    head = find_head(result)
    output = result.graph.output_node()
    output.args = (head.args[0],)
    result.graph.eliminate_dead_code()
    result.recompile()
    return result


def find_head(graph_module: fx.GraphModule) -> fx.Node:
    """The linear layer that gives the scores.

    Raises:
        ModelError: something else does.
    """
    node = graph_module.graph.output_node().args[0]
    if isinstance(node, fx.Node) and node.target is linear and is_constant(node.args[1]):
        return node
    found = str(node.target).removeprefix("aten.") if isinstance(node, fx.Node) else "nothing"
    raise ModelError(
        "the head of this model cannot be replaced",
        f"its scores come from {found}, not straight from a linear layer",
        "build the model with as many outputs as the data has classes, such as ?num_classes=5, and tune it without "
        "--head",
    )


def head_width(graph_module: fx.GraphModule) -> int:
    """K: how many features the last layer reads."""
    return int(constant(graph_module, find_head(graph_module).args[1]).shape[1])


def _parameter(graph_module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph_module.register_parameter(name, nn.Parameter(value.detach().clone(), requires_grad=False))
    return graph_module.graph.get_attr(name)
