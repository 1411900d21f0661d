"""A linear that is only read in parts is one linear per part; one that something else reads stays whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import answer, images, lively, ops, traced
from test_graph_lower import lowered
from torch import Tensor, nn

from shrink.graph.capture import capture
from shrink.graph.lower import lower

SHAPE = (2, 6, 24)  # places, tokens, channels
LINEAR, BARE = (lively(module, seed) for seed, module in enumerate([nn.Linear(24, 192), nn.Linear(24, 96, bias=False)]))
Function = Callable[[Tensor], Tensor]


def parted(function: Function) -> list[str]:
    return lowered(function, "pieces linear_parts", SHAPE)


def vit(x: Tensor) -> Tensor:
    q, k, v = LINEAR(x).reshape(2, 6, 3, 4, 16).permute(2, 0, 3, 1, 4).unbind(0)
    return (q @ k.transpose(-2, -1)).softmax(-1) @ v


def pvt(x: Tensor) -> Tensor:
    k, v = LINEAR(x).reshape(2, 6, 2, 4, 24).permute(2, 0, 3, 1, 4).unbind(0)
    return k.transpose(-2, -1) @ v


def levit(x: Tensor) -> Tensor:
    """Keys of fewer channels than values, head by head."""
    q, k, v = LINEAR(x.reshape(12, 24)).reshape(2, 6, 192).reshape(2, 6, 4, 48).split([8, 8, 32], dim=3)
    return (q.permute(0, 2, 1, 3) @ k.permute(0, 2, 3, 1)).softmax(-1) @ v.permute(0, 2, 1, 3)


def mamba_out(x: Tensor) -> Tensor:
    gate, kept, mixed = torch.split(BARE(x), (48, 16, 32), dim=-1)
    return gate.sigmoid() * torch.cat([kept, mixed.tanh()], -1)


@pytest.mark.parametrize(
    ("function", "linears"),
    [
        (vit, 3),
        (pvt, 2),
        (levit, 3),
        (mamba_out, 3),
        (lambda x: (y := LINEAR(x).reshape(12, 192).reshape(6, 2, 192))[..., :96] * y[..., 96:], 2),
        (lambda x: (y := BARE(x))[..., :-64].exp() * y[..., -32:], 2),
        (lambda x: (y := LINEAR(x).reshape(2, 6, 3, 64).unsqueeze(0).transpose(0, -2).squeeze(-2))[0] * y[2], 2),
    ],
)
def test_parts_are_linears_of_their_own(function: Function, linears: int) -> None:
    found = parted(function)
    assert found.count("linear.default") == linears
    assert not {"select.int", "slice.Tensor", "split.Tensor"} & set(found), found


@pytest.mark.parametrize(
    "function",
    [
        lambda x: LINEAR(x)[..., :96].exp(),  # one part
        lambda x: (y := LINEAR(x))[..., :96] * y[..., 96:] + y.mean(),  # read whole, too
        lambda x: (y := LINEAR(x))[0] * y[1],  # parts of the places
        lambda x: (y := LINEAR(x))[..., :128] * y[..., 64:],  # some outputs twice
        lambda x: (y := LINEAR(x))[..., :8] * y[..., 8:16],  # few outputs
        lambda x: (y := LINEAR(x))[..., ::2] * y[..., 1::2],
        lambda x: sum(LINEAR(x).reshape(2, 6, 12, 16).unbind(2)),  # many parts
        lambda x: (y := LINEAR(x).transpose(1, 2).reshape(2, 2, 96, 6))[:, 0] * y[:, 1],
        lambda x: (y := nn.functional.linear(x, x.mean() * LINEAR.weight))[..., :96] * y[..., 96:],
    ],
)
def test_what_is_read_otherwise_stays(function: Function) -> None:
    assert parted(function).count("linear.default") == 1


@pytest.mark.parametrize(
    ("tokens", "width", "linears"),
    [(1100, 64, 2), (1100, 128, 2), (1100, 96, 1), (1000, 64, 1)],
    ids=["tiles", "more tiles", "no tiles", "small"],
)
def test_parts_that_pay_in_some_runtimes_only(tokens: int, width: int, linears: int) -> None:
    def function(x: Tensor) -> Tensor:
        return (y := LINEAR(x))[..., :width].mean() * y[..., width:]

    for rule, wanted in (("large_parts", linears), ("linear_parts", 2)):
        graph_module = traced(function, (1, tokens, 24))
        lower(graph_module, ["pieces", rule])
        assert ops(graph_module).count("linear.default") == wanted


class Attending(nn.Module):
    """PyTorch's own attention, over the columns of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 3, batch_first=True)

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(1, 2)
        answer: Tensor = self.attention(x, x, x, need_weights=False)[0].mean(1)
        return answer


def test_parts_are_of_the_layer_of_the_linear() -> None:
    module = lively(Attending())
    graph_module = capture(module, (1, 3, 4, 24))
    assert [line.split(":")[0] for line in lower(graph_module, ["pieces", "linear_parts"])] == ["linear_parts"]
    linears = [node for node in graph_module.graph.nodes if node.target is torch.ops.aten.linear.default]
    assert [node.meta["layer"] for node in linears] == ["attention"] * 4
    for image in images(2, (1, 3, 4, 24), seed=0):
        torch.testing.assert_close(answer(graph_module, image), answer(module, image), rtol=1e-5, atol=1e-6)
