"""A clamp between codes goes where codes clamp as it does, and nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor, fx
from torch.nn import functional as F

from shrink.export.clamps import without_clamps

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
    return fx.GraphModule(torch.nn.Module(), graph)


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


def test_a_clamp_that_answers_in_float_stays() -> None:
    def answer(x: Tensor) -> Tensor:
        args = (0.05, 3, -128, 127, torch.int8)
        codes = quantized.quantize_per_tensor.default(x, *args)
        return F.relu(quantized.dequantize_per_tensor.default(codes, *args))

    assert clamps(without_clamps(torch.fx.experimental.proxy_tensor.make_fx(answer)(torch.zeros(3)))) == 1
