"""What may be scaled may be scaled: any positive factors on free channels leave the answer as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from shrink.graph.capture import capture
from shrink.graph.channels import NOTHING, Channels, channels
from shrink.graph.edit import scale_inputs
from shrink.quantize.equalize import _of, _scale_outputs

SHAPE = (1, 4, 8, 8)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 3, padding=1)
        self.depth, self.last = nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.b(torch.relu(self.a(x)))
        x = nn.functional.max_pool2d(self.depth(nn.functional.pad(x, (1, 1, 1, 1))), 2)
        return self.last(x.mean((2, 3)))


class Shuffled(nn.Module):
    """Split, grouped convolution, concatenation and a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        x = torch.cat((left, self.branch(torch.relu(right))), 1)
        x = x.reshape(1, 2, 4, 8, 8).transpose(1, 2).reshape(1, 8, 8, 8)
        return self.last(x).mean((2, 3))


class Attention(nn.Module):
    """Queries and keys may not be scaled one without the other; values and normalized tokens may."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(1, 32, 8)
        q, k, v = self.qkv(self.norm(tokens)).reshape(1, 32, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(1, 32, 8)).mean(1)


class Gated(nn.Module):
    """Squeeze and excite: the gate keeps its scale, what it gates need not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.last = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.stem(x) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))).mean((2, 3))


class Bent(nn.Module):
    """Clamps and GELUs do not let a scale through."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(nn.functional.gelu(self.b(nn.functional.relu6(self.a(x))))).mean((2, 3))


FREE = {Residual: 8 + 6 + 8 + 8, Shuffled: 8 + 4, Attention: 8 + 8, Gated: 8, Bent: 0}
"""Output channels that may be scaled: all but those of the answer, of queries, keys and gates, and what is bent."""


def graph_of(kind: Callable[[], nn.Module]) -> fx.GraphModule:
    torch.manual_seed(0)
    return capture(kind().eval(), SHAPE)


def scaled(graph: fx.GraphModule, found: Channels, factors: Tensor) -> fx.GraphModule:
    for node in list(graph.graph.nodes):
        if node.name in found.read:
            scale_inputs(graph, node, 1 / _of(factors, found.read[node.name]))
        if node.name in found.made:
            _scale_outputs(graph, node, _of(factors, found.made[node.name]))
    graph.recompile()
    return graph


@pytest.mark.parametrize("kind", FREE)
def test_free_channels_take_any_factor_and_the_answer_stays(kind: type[nn.Module]) -> None:
    graph = graph_of(kind)
    found = channels(graph.graph)
    made = torch.cat(list(found.made.values()))
    assert int(found.free[made].sum()) == FREE[kind]
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = graph(x)
        factors = torch.exp2(torch.randn(len(found.free), generator=torch.Generator().manual_seed(2)) * 3)
        given = scaled(graph, found, torch.where(found.free, factors, torch.ones(())))(x)
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_a_channel_that_is_not_free_would_change_the_answer() -> None:
    """The checker can fail: scaling the bent channels as if they were free is noticed."""
    graph = graph_of(Bent)
    found = channels(graph.graph)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = graph(x)
        given = scaled(graph, found, torch.full((len(found.free),), 4.0))(x)
    assert (given - wanted).abs().max() > 1e-2


def test_added_values_share_their_labels_and_padding_has_none() -> None:
    graph = graph_of(Residual)
    found = channels(graph.graph)
    stem, branch = found.made["conv2d"], found.made["conv2d_2"]
    assert torch.equal(stem, branch) and len(stem.unique()) == 8
    padded = next(n for n in graph.graph.nodes if n.target is torch.ops.aten.constant_pad_nd.default)
    labels = found.values[padded.name]
    assert bool((labels[:, :, 0] == NOTHING).all()) and torch.equal(labels[0, :, 1, 1], stem)
