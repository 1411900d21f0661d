"""Weights with channels last: other strides, the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from shrink.graph.capture import capture
from shrink.graph.training import Network, channels_last

CPU = torch.device("cpu")


class _Net(nn.Module):
    """A convolution, a depthwise one, and a table of four dimensions that no convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.table = nn.Parameter(torch.randn(1, 8, 6, 5))
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.second(self.first(x).relu()) + self.table).mean((2, 3)))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(capture(_Net().eval().requires_grad_(False), (1, 3, 6, 5)))


def _last(network: Network) -> dict[tuple[int, ...], bool]:
    """Shape -> whether channels are last; one channel is last in any order."""
    return {
        tuple(weight.shape): weight.is_contiguous(memory_format=torch.channels_last)
        for weight in network.parameters()
        if weight.dim() == 4
    }


def test_on_a_cpu_weights_of_convolutions_have_channels_last(network: Network) -> None:
    assert _last(network.on(CPU)) == {(8, 3, 3, 3): True, (8, 1, 3, 3): True, (1, 8, 6, 5): False}


def test_a_step_changes_the_weights_as_without_it(network: Network) -> None:
    images = torch.randn(4, 3, 6, 5)
    other = Network(network.graph_module).on(CPU)
    grads = []
    for one in (network, other):
        one(images).square().sum().backward()  # type: ignore[union-attr]
        grads.append([weight.grad for weight in one.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_what_is_finished_is_laid_out_as_usual(network: Network) -> None:
    given = {name: value.detach().clone() for name, value in network.state_dict().items()}
    done = network.on(CPU).finished()
    assert all(weight.is_contiguous() and not weight.requires_grad for weight in done.parameters())
    for name, value in done.state_dict().items():
        assert torch.equal(value, given[f"graph_module.{name}"])


def test_weights_that_are_rounded_on_their_way_are_found(network: Network) -> None:
    graph_module = network.graph_module
    (conv, _) = (node for node in graph_module.graph.nodes if node.target is torch.ops.aten.conv2d.default)
    with graph_module.graph.inserting_before(conv):
        conv.update_arg(1, graph_module.graph.call_function(torch.ops.aten.round.default, (conv.args[1],)))
    graph_module.recompile()
    channels_last(graph_module)
    assert _last(network)[8, 3, 3, 3]
