"""A scheme without floats: everything on codes, or the op that cannot be."""

from __future__ import annotations

import pytest
import torch
from quantize_graphs import Block, Residual, graph_of, images
from torch import Tensor, nn

from shrink import targets
from shrink.errors import LoweringError
from shrink.graph.capture import capture
from shrink.graph.lower import lower
from shrink.quantize.plan import make_plan
from shrink.quantize.ranges import observe
from shrink.quantize.whole import whole_scheme

FULL = targets.load("tflite-int8-full")
TOKENS = (1, 6, 8)


def test_every_op_is_static_and_every_value_held_but_the_fused() -> None:
    graph = graph_of(Residual().eval(), (1, 4, 8, 8), *FULL.lower)
    scheme = whole_scheme(graph.graph, FULL)
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    assert scheme.static == {node.name for node in calls} and not scheme.dynamic
    (image,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    fused = {node.args[0].name for node in calls if node.target is torch.ops.aten.relu.default}
    assert len(fused) == 2
    assert {*scheme.values} == {image.name, *(node.name for node in calls)} - fused


def test_softmax_has_the_scale_that_the_kernel_asks_for_and_so_has_what_moves_it() -> None:
    def attend(x: Tensor) -> Tensor:
        return torch.matmul(torch.softmax(x @ x.transpose(-1, -2), -1).reshape(1, 1, 6, 6), x)

    graph = graph_of(attend, TOKENS, *FULL.lower)
    scheme = whole_scheme(graph.graph, FULL)
    ranges = observe(graph, scheme.values, [x * 9 for x in images(3, TOKENS)])  # some weights become 1
    codes = make_plan(scheme, ranges, every_row=True).codes
    given = [codes[name] for name in scheme.fixed]
    assert len(given) >= 2 and {(c.scale, c.zero_point) for c in given} == {(1 / 256, -128)}


def test_a_transformer_is_whole_after_lowering() -> None:
    graph = graph_of(Block().eval(), TOKENS, *FULL.lower)
    assert whole_scheme(graph.graph, FULL).static


class Odd(nn.Module):
    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.stem, self.odd, self.head = nn.Conv2d(4, 4, 3), nn.Sequential(op), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.odd(self.stem(x)))


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


@pytest.mark.parametrize(("op", "name"), [(nn.Hardshrink(), "gt.Scalar"), (Product(), "erf.default")])
def test_an_op_without_an_integer_kernel_is_named_with_its_layer(op: nn.Module, name: str) -> None:
    graph = capture(Odd(op).eval(), (1, 4, 8, 8))
    lower(graph, FULL.lower)
    with pytest.raises(LoweringError, match=rf"{name} in layer 'odd\.0' has no integer kernel on") as caught:
        whole_scheme(graph.graph, FULL)
    assert "tflite-int8, which may leave it in float" in caught.value.fix and caught.value.exit_code == 1
