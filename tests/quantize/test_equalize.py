"""Equalization undoes what unlike channels cost, and changes no float answer."""

from __future__ import annotations

import pytest
import torch
from quantize_graphs import ONNX, SHAPE, graph_of, images, run
from torch import Tensor, fx, nn

from shrink import quantize
from shrink.graph.convolution import convolution
from shrink.graph.edit import constant
from shrink.quantize.equalize import channel_axes, equalize
from shrink.quantize.ranges import observe

NORMALIZATION = ((0.5,) * 4, (0.25,) * 4)
HELD = ("x_1", "relu", "relu_1", "conv2d_2")
SPREAD = torch.logspace(-2, 2, 16)  # what the channels of the sabotaged net are multiplied with


class Net(nn.Module):
    """conv, relu, depthwise, relu, conv, mean; `sabotaged` says the same with channels of very unlike size."""

    def __init__(self, sabotaged: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 6, 1)
        if sabotaged:
            with torch.no_grad():
                self.a.weight.mul_(SPREAD[:, None, None, None])
                self.a.bias.mul_(SPREAD)
                self.b.weight.div_(SPREAD[:, None, None, None])
                self.b.weight.mul_(SPREAD.flip(0)[:, None, None, None])
                self.b.bias.mul_(SPREAD.flip(0))
                self.c.weight.div_(SPREAD.flip(0)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x))))).mean((2, 3))


def observed(graph: fx.GraphModule) -> quantize.Observed:
    return quantize.observe(graph, [ONNX], images(32, seed=4), normalization=NORMALIZATION)


def test_the_float_answer_stays_and_the_ranges_are_those_of_the_new_graph() -> None:
    graph = graph_of(Net(sabotaged=True))
    found = equalize(graph, observed(graph).ranges, HELD, 0.5)
    assert found is not None and found.channels > 28
    for image in images(3, seed=9):
        torch.testing.assert_close(run(found.graph, image), run(graph, image), rtol=1e-4, atol=1e-5)
    again = observe(found.graph, found.ranges, images(32, seed=4))
    for name in ("conv2d", "relu", "conv2d_1", "relu_1"):
        torch.testing.assert_close(found.ranges[name].high, again[name].high, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.ranges[name].low, again[name].low, rtol=1e-4, atol=1e-5)


def test_a_sabotaged_net_is_brought_to_the_same_state_as_its_honest_twin() -> None:
    """The factors depend on products that sabotage leaves as they are."""
    chosen = {}
    for sabotaged in (False, True):
        graph = graph_of(Net(sabotaged))
        chosen[sabotaged] = quantize.choose(graph, observed(graph), ONNX, images(8, seed=9))
    equalized = {key: next(r for r in value.rungs if "equalized" in r.what) for key, value in chosen.items()}
    assert equalized[True].error == pytest.approx(equalized[False].error, rel=0.01)
    assert equalized[True].kept and chosen[True].rungs[0].error > 50 * equalized[True].error  # naive ranges fail


def test_depthwise_readers_leave_channels_exactly_alike() -> None:
    """They have a scale per channel, so nothing speaks against full equality."""
    graph = graph_of(Net(sabotaged=True))
    found = equalize(graph, observed(graph).ranges, HELD, 0.5)
    assert found is not None
    ends = found.ranges["relu"].ends
    assert ends is not None
    torch.testing.assert_close(ends.high, ends.high.max().expand(16), rtol=1e-4, atol=0)


def test_nothing_to_scale_is_none() -> None:
    graph = graph_of(nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU6(), nn.Conv2d(6, 3, 1)))
    assert channel_axes(graph.graph, ["conv2d", "hardtanh"]) == {}
    assert equalize(graph, observed(graph).ranges, HELD, 0.5) is None


def test_the_graph_given_keeps_its_weights() -> None:
    graph = graph_of(Net(sabotaged=True), SHAPE)
    conv = next(n for n in graph.graph.nodes if n.target is torch.ops.aten.conv2d.default)
    before = constant(graph, convolution(conv).weight).clone()
    equalize(graph, observed(graph).ranges, HELD, 0.5)
    assert torch.equal(constant(graph, convolution(conv).weight), before)
