"""What is told of a value without computing it is what a run finds."""

from __future__ import annotations

import pytest
import torch
from graph_nets import LIBRARY_NETS, NETS, SHAPE, lively
from torch import Tensor, fx

from shrink import targets
from shrink.graph.capture import capture
from shrink.graph.edit import call
from shrink.graph.lower import lower
from shrink.graph.shapes import annotate_shapes, order_of, result_of

aten = torch.ops.aten
X = (1, 4, 6, 8)


@pytest.mark.parametrize("name", [*NETS, *LIBRARY_NETS])
def test_calls_give_what_a_run_gives(name: str) -> None:
    graph_module = capture(lively({**NETS, **LIBRARY_NETS}[name]()), SHAPE)
    lower(graph_module, targets.load("tflite-int8").lower)
    calls = [node for node in graph_module.graph.nodes if node.op == "call_function"]
    for node in calls:
        told = result_of(node)
        assert told == {key: node.meta[key] for key in told}
        assert told or not all("shape" in source.meta for source in (node, *node.all_input_nodes))
    assert sum(bool(result_of(node)) for node in calls) >= len(calls) // 2 + 1


def graph_of_one() -> tuple[fx.GraphModule, fx.Node]:
    """x -> x, and its output node."""
    graph = fx.Graph()
    output = graph.output(graph.placeholder("x"))
    graph_module = fx.GraphModule(torch.nn.Module(), graph)
    annotate_shapes(graph_module, torch.zeros(X))
    return graph_module, output


def test_a_call_knows_its_shape_and_dtype_and_so_does_what_reads_it() -> None:
    graph_module, output = graph_of_one()
    x = next(iter(graph_module.graph.nodes))
    turned = call(output, aten.permute.default, x, [0, 2, 3, 1])
    parts = call(output, aten.split.Tensor, turned, 3, 1)
    whole = call(output, aten._to_copy.default, turned, dtype=torch.int64)
    assert (turned.meta["shape"], turned.meta["dtype"]) == ((1, 6, 8, 4), torch.float32)
    assert (whole.meta["shape"], whole.meta["dtype"]) == ((1, 6, 8, 4), torch.int64)
    assert "shape" not in parts.meta  # it is no tensor


def test_a_call_that_cannot_be_is_refused_where_it_is_written() -> None:
    graph_module, output = graph_of_one()
    with pytest.raises(RuntimeError):
        call(output, aten.reshape.default, next(iter(graph_module.graph.nodes)), [5, 5])


@pytest.mark.parametrize("order", [[0, 2, 3, 1], [0, -1, 1, 2], [3, 2, 1, 0]])
def test_the_order_of_a_turn_is_where_its_axes_come_from(order: list[int]) -> None:
    graph_module, output = graph_of_one()
    x = next(iter(graph_module.graph.nodes))
    found = order_of(call(output, aten.permute.default, x, order))
    assert [X[axis] for axis in found] == list(torch.zeros(X).permute(order).shape)
    pair = call(output, aten.transpose.int, x, order[1], order[2])
    given: Tensor = torch.zeros(X).transpose(order[1], order[2])
    assert [X[axis] for axis in order_of(pair)] == list(given.shape)
