"""The arguments of aten.conv2d by name, with its defaults filled in, and which weights read which channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Convolution:
    """How a convolution reads its input; pairs are (height, width)."""

    x: fx.Node
    weight: fx.Node  # (O, C / groups, kh, kw)
    bias: fx.Node | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel reads one of several input channels."""
        return bool(self.groups > 1 and self.weight.meta["shape"][1] == 1)


def convolution(node: fx.Node) -> Convolution:
    """Read the arguments of a conv2d node; padding given as a word was spelled out when the graph was captured."""
    given: list[Any] = [*node.args]
    x, weight, bias, stride, padding, dilation, groups = given + [None, 1, 0, 1, 1][len(given) - 2 :]
    return Convolution(x, weight, bias, pair(stride), pair(padding), pair(dilation), int(groups))


def by_input(node: fx.Node, weight: Tensor) -> Tensor:
    """The weight of a convolution or linear, or what has its shape, as (groups, O / groups, C / groups, kh kw)."""
    groups = convolution(node).groups if node.target is torch.ops.aten.conv2d.default else 1
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def times_inputs(node: fx.Node, weight: Tensor, factors: Tensor) -> Tensor:
    """Every weight of a convolution or linear times the factor, of (C,), of the input channel that it reads."""
    split = by_input(node, weight)
    return (split * factors.reshape(split.shape[0], 1, split.shape[2], 1)).reshape(weight.shape)


def patches(node: fx.Node, x: Tensor) -> Tensor:
    """What a convolution multiplies with its weight, place by place: (N, C, H, W) -> (N, places, C kh kw)."""
    conv = convolution(node)
    size = conv.weight.meta["shape"][2:]
    return functional.unfold(x, size, conv.dilation, conv.padding, conv.stride).transpose(1, 2)


def pair(value: Any) -> tuple[int, int]:
    """A size of ATen, one number or two, as (height, width)."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])
