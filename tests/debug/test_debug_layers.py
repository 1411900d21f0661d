"""Errors put into a graph by hand are found in the layer where they were put, and are as large as they should be."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx, nn

from shrink.debug.layers import MOST_DB, LayerError, layer_errors
from shrink.graph.capture import capture

SHAPE = (1, 3, 16, 16)
ops = torch.ops.quantized_decomposed


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(torch.relu(self.third(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    return capture(Net(), SHAPE)


def images(count: int = 4) -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(SHAPE, generator=rng) for _ in range(count)]


def of_layer(graph_module: fx.GraphModule, layer: str) -> fx.Node:
    return next(n for n in graph_module.graph.nodes if n.op == "call_function" and n.meta.get("layer") == layer)


def on_codes(graph_module: fx.GraphModule, node: fx.Node, scale: float, zero: int = 0) -> None:
    """Put the output of a node on codes, as the quantized graph of an export does."""
    args = (scale, zero, -128, 127, torch.int8)
    readers = list(node.users)
    with graph_module.graph.inserting_after(node):
        codes = graph_module.graph.call_function(ops.quantize_per_tensor.default, (node, *args))
    with graph_module.graph.inserting_after(codes):
        back = graph_module.graph.call_function(ops.dequantize_per_tensor.default, (codes, *args))
    for reader in readers:
        reader.replace_input_with(node, back)
    graph_module.recompile()


def run(graph_module: fx.GraphModule, xs: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.cat([graph_module(x) for x in xs])


def spoil_weight(graph_module: fx.GraphModule, layer: str, by: float) -> None:
    weight = graph_module.get_parameter(f"{layer}.weight")
    with torch.no_grad():
        weight += by * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))


def test_a_graph_against_itself_has_no_errors(graph: fx.GraphModule) -> None:
    assert layer_errors(graph, copy.deepcopy(graph), images()) == ()


def test_rounding_of_the_image_has_the_noise_of_the_equation(graph: fx.GraphModule) -> None:
    """Uniform rounding with step s has the power s^2 / 12."""
    rounded, step = copy.deepcopy(graph), 0.04
    on_codes(rounded, next(n for n in rounded.graph.nodes if n.op == "placeholder"), step)
    (found,) = layer_errors(graph, rounded, images())
    power = float(torch.cat(images()).square().mean())
    assert (found.layer, found.op, found.cause) == ("image", "input", "codes")
    assert found.own_db == pytest.approx(10 * math.log10(power / (step**2 / 12)), abs=0.2)
    assert found.own_db == found.total_db  # nothing comes before it


def test_what_one_op_costs_is_the_whole_cost_if_it_is_the_only_one(graph: fx.GraphModule) -> None:
    rounded = copy.deepcopy(graph)
    on_codes(rounded, of_layer(rounded, "second"), 0.03)
    (found,) = layer_errors(graph, rounded, images())
    wanted, given = run(graph, images()), run(rounded, images())
    assert found.scores == pytest.approx(float((given - wanted).square().mean().sqrt() / wanted.std()), rel=1e-5)


@pytest.mark.parametrize("layer", ["first", "second", "third", "head"])
def test_the_layer_whose_weights_were_spoilt_is_first(graph: fx.GraphModule, layer: str) -> None:
    spoilt = copy.deepcopy(graph)
    for node in list(spoilt.graph.nodes):
        if node.op == "call_function" and node.meta["layer"] in ("first", "second", "third"):
            on_codes(spoilt, node, 0.02)
    spoil_weight(spoilt, layer, 0.3)
    found = layer_errors(graph, spoilt, images())
    assert (found[0].layer, found[0].cause) == (layer, "weights")
    assert "weights" in found[0].words


@pytest.mark.parametrize("layer", ["first", "second", "third"])
def test_the_layer_whose_codes_are_coarse_is_first(graph: fx.GraphModule, layer: str) -> None:
    coarse = copy.deepcopy(graph)
    for name in ("first", "second", "third"):
        on_codes(coarse, of_layer(coarse, name), 0.5 if name == layer else 0.01)
    found = layer_errors(graph, coarse, images())
    assert (found[0].layer, found[0].cause) == (layer, "codes")
    assert found[0].own_db < min(one.own_db for one in found[1:])


def test_errors_gather_behind_the_layer_that_makes_them(graph: fx.GraphModule) -> None:
    """The other layers are exact themselves: they inherit the error and are not accused."""
    spoilt = copy.deepcopy(graph)
    spoil_weight(spoilt, "first", 0.5)
    on_codes(spoilt, of_layer(spoilt, "third"), 0.005)
    found = {one.layer: one for one in layer_errors(graph, spoilt, images())}
    assert found.keys() == {"first", "third"}
    assert found["third"].own_db > 30 > 15 > found["third"].total_db


def test_rounding_at_run_time_belongs_to_the_op_that_reads_it(graph: fx.GraphModule) -> None:
    dynamic = copy.deepcopy(graph)
    head = of_layer(dynamic, "head")

    def coarse(x: Tensor) -> Tensor:
        return (x / 0.05).round() * 0.05

    with dynamic.graph.inserting_before(head):
        rounded = dynamic.graph.call_function(coarse, (head.args[0],))
    head.update_arg(0, rounded)
    dynamic.recompile()
    (found,) = layer_errors(graph, dynamic, images())
    assert (found.layer, found.op, found.cause) == ("head", "linear", "weights")


def test_a_node_that_is_read_in_float_and_on_codes() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return (y + torch.tanh(y)).mean((2, 3))

    torch.manual_seed(0)
    plain = capture(Residual(), SHAPE)
    rounded = copy.deepcopy(plain)
    on_codes(rounded, of_layer(rounded, "conv"), 0.05)
    found = layer_errors(plain, rounded, images())
    assert [one.layer for one in found] == ["conv"]


def test_no_noise_is_the_most_decibels_and_outliers_are_named() -> None:
    def of(reach: float, cause: str) -> str:
        return LayerError("n", "l", "conv2d", 10.0, MOST_DB, 0.1, reach, cause).words

    assert "reach 50 times their rms" in of(50, "codes")
    assert of(5, "codes") == "rounding its output to 256 codes does it"
    assert "weights" in of(50, "weights")
