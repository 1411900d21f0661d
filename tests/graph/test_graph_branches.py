"""Sums of depthwise branches: one convolution with the same answers, and only where it is less work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import images, lively, ops
from torch import Tensor, nn

from shrink.graph.branches import merge_branches
from shrink.graph.capture import capture
from shrink.graph.clean import tidy

CHANNELS = 6
SHAPE = (1, CHANNELS, 9, 8)


def depthwise(size: int, stride: int = 1, padding: int | None = None, dilation: int = 1) -> nn.Conv2d:
    around = size // 2 if padding is None else padding
    return nn.Conv2d(CHANNELS, CHANNELS, size, stride, around, dilation=dilation, groups=CHANNELS)


class Net(nn.Module):
    """Some branches, and a head that depends on all of their answer."""

    def __init__(self, join: Callable[..., Tensor], *branches: nn.Module) -> None:
        super().__init__()
        self.join, self.branches = join, nn.ModuleList(branches)
        self.scale = nn.Parameter(torch.linspace(-1, 2, CHANNELS).reshape(CHANNELS, 1, 1))
        self.head = nn.Sequential(nn.Hardtanh(), nn.Flatten(), nn.LazyLinear(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(x, self.scale, *self.branches))


def merged(net: Net) -> tuple[int, list[str]]:
    """How many sums were merged, and the ops that are left, once the answers are the same."""
    net(torch.zeros(SHAPE))
    module = lively(net).eval()
    graph_module = capture(module, SHAPE)
    wanted = [module(image) for image in images(3, SHAPE)]
    count = merge_branches(graph_module)
    tidy(graph_module)
    for image, right in zip(images(3, SHAPE), wanted, strict=True):
        torch.testing.assert_close(graph_module(image), right, rtol=1e-5, atol=1e-5)
    return count, [op for op in ops(graph_module) if op.split(".")[0] in ("conv2d", "add", "sub", "mul")]


ONE = {
    "two kernels": (lambda x, s, a, b: a(x) + b(x), depthwise(3), depthwise(1)),
    "three kernels and the value": (
        lambda x, s, a, b, c: a(x) + b(x) + c(x) + x, depthwise(5), depthwise(3), depthwise(1)
    ),
    "with stride": (lambda x, s, a, b: a(x) + b(x), depthwise(3, 2), depthwise(1, 2)),
    "the difference, scaled": (lambda x, s, a: x + s * (a(x) - x), depthwise(3)),
    "RepMixer of FastViT": (
        lambda x, s, a, b, n, m: x + s * (a(x) + b(x) + n(x) - m(x)),
        depthwise(3), depthwise(1), nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS),
    ),
    "RepVGG, depthwise, its norm after the sum": (
        lambda x, s, a, b, n: n(a(x) + b(x) + x), depthwise(3), depthwise(1), nn.BatchNorm2d(CHANNELS)
    ),
    "numbers": (lambda x, s, a: 2 * a(x) + 0.5 * x - 1, depthwise(3)),
    "widening": (
        lambda x, s, a, b: a(x) + b(x), nn.Conv2d(6, 12, 5, 2, 2, groups=6), nn.Conv2d(6, 12, 3, 2, 1, groups=6)
    ),
    "of unlike sides": (lambda x, s, a, b: a(x) - b(x), nn.Conv2d(6, 6, (3, 5), 1, (1, 2), groups=6), depthwise(3)),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_a_sum_of_branches_is_one_convolution(name: str) -> None:
    count, left = merged(Net(*ONE[name]))
    assert count and left == ["conv2d.default"]


def full(size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, size, stride, size // 2, groups=groups)


SHORTER = {
    "RepVGG": (
        lambda x, s, a, b, n: a(x) + b(x) + n(x), (full(3), full(1), nn.BatchNorm2d(CHANNELS)),
        ["mul.Tensor", "conv2d.default", "add.Tensor"],
    ),
    "RepVGG, the value first": (
        lambda x, s, a, b: (x + a(x)) + b(x), (full(3), full(1)), ["conv2d.default", "add.Tensor"]
    ),
    "MobileOne": (
        lambda x, s, n, a, b, c: n(x) + a(x) + b(x) + c(x),
        (nn.BatchNorm2d(CHANNELS), full(1), full(1), full(1)), ["mul.Tensor", "conv2d.default", "add.Tensor"],
    ),
    "differences": (
        lambda x, s, a, b: x.relu() - (a(x) - b(x)), (full(3), full(5)), ["conv2d.default", "add.Tensor"]
    ),
    "with stride, of groups": (
        lambda x, s, a, b: a(x) + b(x), (full(3, 2, groups=2), full(1, 2, groups=2)), ["conv2d.default"]
    ),
    "of two values": (
        lambda x, s, a, b, c: a(x) + b(x.relu()) + c(x), (full(3), full(1), full(1)),
        ["conv2d.default", "conv2d.default", "add.Tensor"],
    ),
    "shifts": (lambda x, s, a: (a(x) + x.relu()) - s + 3.0, (full(3),), ["conv2d.default", "add.Tensor"]),
    "what is subtracted first": (
        lambda x, s, a, b: -1.0 * x.relu() - x.tanh() + a(x) + b(x), (full(1), full(1)),
        ["mul.Tensor", "conv2d.default", "add.Tensor", "sub.Tensor"],
    ),
    "twice the same": (lambda x, s, a: (y := a(x)) + y, (full(3),), ["conv2d.default"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SHORTER)
def test_kernels_of_one_value_are_joined_within_a_longer_sum(name: str) -> None:
    join, branches, wanted = SHORTER[name]
    count, left = merged(Net(join, *branches))
    assert count and sorted(left) == sorted(wanted)


APART = {
    "strides differ": (lambda x, s, a, b: a(x)[:, :, ::2, ::2] + b(x), depthwise(3), depthwise(3, 2)),
    "no kernel": (lambda x, s: s * x + x,),
    "another value": (lambda x, s, a, b: a(x) + b(x.relu()), depthwise(3), depthwise(3)),
    "a bend between": (lambda x, s, a, b: a(x) + b(x).relu(), depthwise(3), depthwise(1)),
    "full convolutions": (lambda x, s, a: a(x) + x, full(3)),
    "of unlike groups": (lambda x, s, a, b: a(x) + b(x), full(3), full(3, groups=2)),
    "sums that others read": (
        lambda x, s, a, b: (y := a(x) + x) * (y + b(x)).sigmoid() + y.mean(), full(3), full(1)
    ),
    "neither kernel holds the other": (
        lambda x, s, a, b: a(x) + b(x),
        nn.Conv2d(6, 6, (1, 5), 1, (0, 2), groups=6), nn.Conv2d(6, 6, (5, 1), 1, (2, 0), groups=6),
    ),
    "dilated": (lambda x, s, a: a(x) + x, depthwise(3, 1, 2, 2)),
    "padded otherwise": (lambda x, s, a: a(x)[:, :, 1:-1, 1:-1] + x, depthwise(3, 1, 2)),
    "a factor per place": (lambda x, s, a: a(x) + x * torch.arange(8.0), depthwise(3)),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_what_one_convolution_cannot_do_or_not_with_less_work_stays(name: str) -> None:
    count, _ = merged(Net(*APART[name]))
    assert count == 0


def test_a_chain_of_doublings_is_not_spelled_out() -> None:
    def join(x: Tensor, s: Tensor, a: nn.Module) -> Tensor:
        for _ in range(40):
            x = x + x
        return a(x * 2.0**-40) + x

    assert merged(Net(join, full(3)))[0] == 0


def test_a_branch_that_others_read_is_not_computed_twice() -> None:
    def join(x: Tensor, s: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
        first = a(x)
        return (first + b(x)) * first.sigmoid()

    count, left = merged(Net(join, depthwise(3), depthwise(1)))
    assert count == 0 and left.count("conv2d.default") == 2
