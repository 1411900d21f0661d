"""The arguments of aten.conv2d by name, with its defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def patches(node: fx.Node, x: Tensor) -> Tensor:
    """What a convolution multiplies with its weight, place by place: (N, C, H, W) -> (N, places, C kh kw)."""
    conv = convolution(node)
    size = conv.weight.meta["shape"][2:]
    return functional.unfold(x, size, conv.dilation, conv.padding, conv.stride).transpose(1, 2)


def pair(value: Any) -> tuple[int, int]:
    """A size of ATen, one number or two, as (height, width)."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])
