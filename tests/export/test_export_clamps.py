"""A clamp between codes goes where codes clamp as it does, and nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx
from torch.nn import functional as F

from shrink.export.clamps import without_clamps
from shrink.graph.shapes import annotate_shapes

aten, quantized = torch.ops.aten, torch.ops.quantized_decomposed


def between_codes(clamp: object, *ends: float, zero: int, scale: float = 0.02) -> fx.GraphModule:
    """x -> codes -> clamp -> codes of another range -> x."""
    graph = fx.Graph()
    found = graph.placeholder("x")
    for args in ((0.05, 3), (scale, zero)):
        if args[1] == zero:
            found = graph.call_function(clamp, (found, *ends))  # type: ignore[arg-type]
        found = graph.call_function(quantized.quantize_per_tensor.default, (found, *args, -128, 127, torch.int8))
        found = graph.call_function(quantized.dequantize_per_tensor.default, (found, *args, -128, 127, torch.int8))
    graph.output(found)
    return with_shapes(fx.GraphModule(torch.nn.Module(), graph))


def with_shapes(graph_module: fx.GraphModule) -> fx.GraphModule:
    annotate_shapes(graph_module, torch.zeros(5000))
    return graph_module


def clamps(graph_module: fx.GraphModule) -> int:
    return sum(node.target in (aten.relu.default, aten.hardtanh.default) for node in graph_module.graph.nodes)


@pytest.mark.parametrize(
    ("clamp", "ends", "zero", "scale"),
    [
        (aten.relu.default, (), -128, 0.02),
        (aten.hardtanh.default, (0.0, 6.0), -128, 6 / 255),
        (aten.hardtanh.default, (-1.0, 1.0), 0, 1 / 128),
    ],
)
def test_codes_of_the_same_ends_clamp_alone(clamp: object, ends: tuple[float, ...], zero: int, scale: float) -> None:
    graph_module = between_codes(clamp, *ends, zero=zero, scale=scale)
    found = without_clamps(graph_module)
    assert (clamps(graph_module), clamps(found)) == (1, 0)
    x = torch.linspace(-9, 9, 5000)
    assert torch.equal(found(x), graph_module(x))


@pytest.mark.parametrize(
    ("clamp", "ends", "zero"),
    [(aten.relu.default, (), -127), (aten.hardtanh.default, (0.0, 3.0), -128), (aten.hardtanh.default, (), 0)],
)
def test_codes_that_reach_further_leave_it(clamp: object, ends: tuple[float, ...], zero: int) -> None:
    graph_module = between_codes(clamp, *ends, zero=zero)
    found = without_clamps(graph_module)
    x = torch.linspace(-9, 9, 5000)
    assert clamps(found) == 1 and torch.equal(found(x), graph_module(x))


@pytest.mark.parametrize("zero", [-127, -34, 0, 100])
@pytest.mark.parametrize("scale", [0.02, 0.001, 0.7])
def test_a_relu_before_codes_that_reach_below_it_has_a_sum_to_be_fused_into(zero: int, scale: float) -> None:
    graph_module = between_codes(aten.relu.default, zero=zero, scale=scale)
    found = without_clamps(graph_module)
    x = torch.linspace(-9, 9, 5000)
    (relu,) = (node for node in found.graph.nodes if node.target is aten.relu.default)
    assert relu.args[0].target is aten.add.Tensor and torch.equal(found(x), graph_module(x))


def test_every_reader_of_a_clamp_is_seen_to_alone() -> None:
    """Codes that begin at 0, others, and floats."""

    def answer(x: Tensor) -> tuple[Tensor, ...]:
        ends = (-128, 127, torch.int8)
        codes = quantized.quantize_per_tensor.default(x, 0.05, 3, *ends)
        positive = F.relu(quantized.dequantize_per_tensor.default(codes, 0.05, 3, *ends))
        two = [quantized.quantize_per_tensor.default(positive, 0.02, zero, *ends) for zero in (-128, -5)]
        return *two, positive

    graph_module = with_shapes(torch.fx.experimental.proxy_tensor.make_fx(answer)(torch.zeros(5000)))
    found, x = without_clamps(graph_module), torch.linspace(-9, 9, 5000)
    relus = [node for node in found.graph.nodes if node.target is aten.relu.default]
    sources = {relu.args[0].target: next(iter(relu.users)).op for relu in relus}
    assert sources == {
        aten.add.Tensor: "call_function",  # codes
        quantized.dequantize_per_tensor.default: "output",
    }
    assert all(torch.equal(a, b) for a, b in zip(found(x), graph_module(x), strict=True))


def test_a_clamp_that_answers_in_float_stays() -> None:
    def answer(x: Tensor) -> Tensor:
        args = (0.05, 3, -128, 127, torch.int8)
        codes = quantized.quantize_per_tensor.default(x, *args)
        return F.relu(quantized.dequantize_per_tensor.default(codes, *args))

    assert clamps(without_clamps(torch.fx.experimental.proxy_tensor.make_fx(answer)(torch.zeros(3)))) == 1
