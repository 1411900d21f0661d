"""Parallel branches of one value, added up, are one convolution.

Networks are trained with more branches than they need: kernels of several sizes, the value itself, its batch norm and a
scale per channel (Ding et al., "RepVGG", CVPR 2021; Vasu et al., "MobileOne", CVPR 2023, and "FastViT", ICCV 2023). All
of it is linear, so it is a convolution with the sum of the kernels, exact but for the order of additions. Of full
convolutions only the kernels are joined: the value itself within a weight of many inputs leaves their own weights few
of 255 codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx
from torch.nn import functional

from shrink.graph import edit
from shrink.graph.convolution import convolution
from shrink.graph.edit import add_constant, call, constant, is_constant

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Branch:
    """What a convolution makes of a value, (1, C, H, W) -> (1, O, H', W').

    Attributes:
        source: the value.
        groups: C for a depthwise one.
        weight: (O, C / groups, kh, kw), odd sizes; the padding is half of them.
        bias: (O,).
        stride: (height, width).
        kernels: convolutions that it stands for; with none it is scales and shifts only.
    """

    source: fx.Node
    groups: int
    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    kernels: int

    def plus(self, other: Branch, sign: float) -> Branch | None:
        """Their sum, if one convolution without idle taps can do both."""
        mine, others = ((one.source, one.stride, one.groups, len(one.bias)) for one in (self, other))
        if mine != others:
            return None
        sizes = [tuple(one.weight.shape[2:]) for one in (self, other)]
        size = max(one[0] for one in sizes), max(one[1] for one in sizes)
        if size not in sizes:
            return None
        weight = _grown(self.weight, size) + sign * _grown(other.weight, size)
        bias, kernels = self.bias + sign * other.bias, self.kernels + other.kernels
        return replace(self, weight=weight, bias=bias, kernels=kernels)

    def times(self, scale: Tensor) -> Branch:
        """Scaled by (O,)."""
        return replace(self, weight=self.weight * scale.reshape(-1, 1, 1, 1), bias=self.bias * scale)

    def shifted(self, shift: Tensor) -> Branch:
        """With (O,) added."""
        return replace(self, bias=self.bias + shift)


def merge_branches(graph_module: fx.GraphModule) -> int:
    """Write every such sum as one convolution, or as a shorter sum, in place; how many there were.

    Shapes must be in the meta of the nodes; those of the new ones are. What nobody reads any more is left to tidy up.
    """
    return _merge_depthwise(graph_module) + _merge_kernels(graph_module)


def _merge_depthwise(graph_module: fx.GraphModule) -> int:
    """Whole sums, with all that is linear channel by channel."""
    merged = 0
    for node in list(graph_module.graph.nodes):
        if node.target not in SUMS:
            continue
        one = next((found for found in _read(graph_module, node) if found.kernels), None)
        if one is not None:
            edit.replace(node, _written(graph_module, node, one))
            merged += 1
    return merged


SUMS = {aten.add.Tensor: 1.0, aten.sub.Tensor: -1.0}


def _options(graph_module: fx.GraphModule, node: fx.Node) -> Iterator[Branch]:
    """The ways to see a value as a branch: of itself, and, if nobody else needs it, of what it was made of."""
    channels = node.meta["shape"][1]
    yield Branch(node, channels, torch.ones(channels, 1, 1, 1), torch.zeros(channels), (1, 1), 0)
    if _is_read_once(node):
        yield from _read(graph_module, node)


def _read(graph_module: fx.GraphModule, node: fx.Node) -> Iterator[Branch]:
    """The ways to see it as a branch of what it was made of."""
    if node.op != "call_function" or len(node.meta.get("shape", ())) != 4:
        return
    if node.target is aten.conv2d.default:
        if convolution(node).is_depthwise:
            yield from _kernel(graph_module, node)
    elif node.target is aten.mul.Tensor:
        a, b = node.args
        for value, factor in ((a, b), (b, a)):
            scale = _per_channel(graph_module, factor, node)
            if scale is not None and _is_like(value, node):
                yield from (one.times(scale) for one in _options(graph_module, value))
    elif node.target in SUMS and not node.kwargs:
        yield from _sum(graph_module, node, SUMS[node.target])


def _kernel(graph_module: fx.GraphModule, node: fx.Node) -> Iterator[Branch]:
    conv = convolution(node)
    size = conv.weight.meta["shape"][2:] if is_constant(conv.weight) else ()
    odd = all(side % 2 for side in size) and conv.padding == tuple(side // 2 for side in size)
    if odd and conv.dilation == (1, 1) and (conv.bias is None or is_constant(conv.bias)):
        weight = constant(graph_module, conv.weight)
        bias = torch.zeros(len(weight)) if conv.bias is None else constant(graph_module, conv.bias)
        yield Branch(conv.x, conv.groups, weight, bias, conv.stride, 1)


def _sum(graph_module: fx.GraphModule, node: fx.Node, sign: float) -> Iterator[Branch]:
    a, b = node.args
    shift = _per_channel(graph_module, b, node)
    if shift is not None and _is_like(a, node):
        yield from (one.shifted(sign * shift) for one in _options(graph_module, a))
    elif _is_like(a, node) and _is_like(b, node):
        for one, other in product(_options(graph_module, a), _options(graph_module, b)):
            if found := one.plus(other, sign):
                yield found


Term = tuple[Any, float]
"""A value or number of a sum, and its sign."""


def _merge_kernels(graph_module: fx.GraphModule) -> int:
    """Kernels for one value, and shifts, within sums of anything."""
    merged = 0
    for node in list(graph_module.graph.nodes):
        if not _is_sum(node) or _is_part(node):
            continue
        terms = list(_terms(node, 1.0))
        kernels, others = _joined(graph_module, node, terms)
        if kernels and len(kernels) + len(others) < len(terms):
            edit.replace(node, _total(graph_module, node, kernels, others))
            merged += 1
    return merged


def _is_sum(node: object) -> TypeGuard[fx.Node]:
    is_call = isinstance(node, fx.Node) and node.target in SUMS and not node.kwargs
    return is_call and len(node.meta.get("shape", ())) == 4  # type: ignore[attr-defined]


def _is_part(node: object) -> TypeGuard[fx.Node]:
    """Whether it is a sum that only a longer one needs."""
    if not _is_sum(node) or not _is_read_once(node):
        return False
    (user,) = node.users
    return _is_sum(user) and _is_like(node, user)


def _is_read_once(node: fx.Node) -> bool:
    """Not so in y + y: a chain of those has twice as many terms with every link."""
    return len(node.users) == 1 and next(iter(node.users)).args.count(node) == 1


def _terms(node: fx.Node, sign: float) -> Iterator[Term]:
    for value, its in zip(node.args[:2], (sign, sign * SUMS[node.target]), strict=True):  # type: ignore[index]
        if _is_part(value):
            yield from _terms(value, its)
        else:
            yield value, its


def _joined(graph_module: fx.GraphModule, node: fx.Node, terms: Sequence[Term]) -> tuple[list[Branch], list[Term]]:
    """The kernels that are left, with all that is constant in their biases, and the other terms."""
    kernels: list[Branch] = []
    others: list[Term] = []
    shift = torch.zeros(node.meta["shape"][1])
    for value, sign in terms:
        number = _per_channel(graph_module, value, node)
        alone = _is_like(value, node) and value.target is aten.conv2d.default and len(value.users) == 1
        kernel = next(_kernel(graph_module, value), None) if alone else None
        if number is not None:
            shift = shift + sign * number
        elif kernel is not None:
            _join(kernels, kernel.times(torch.tensor([sign])))
        else:
            others.append((value, sign))
    return [one.shifted(shift) if one is kernels[0] else one for one in kernels], others


def _join(kernels: list[Branch], new: Branch) -> None:
    """Add it to one that can take it, or to the list."""
    for place, known in enumerate(kernels):
        if found := known.plus(new, 1.0):
            kernels[place] = found
            return
    kernels.append(new)


def _total(graph_module: fx.GraphModule, node: fx.Node, kernels: Sequence[Branch], others: Sequence[Term]) -> fx.Node:
    total, *rest = (_written(graph_module, node, kernel) for kernel in kernels)
    for value, sign in [*((one, 1.0) for one in rest), *others]:
        total = call(node, aten.add.Tensor if sign > 0 else aten.sub.Tensor, total, value)
    return total


def _is_like(value: object, node: fx.Node) -> TypeGuard[fx.Node]:
    """Whether it depends on the image and has the shape of the node, which reads it."""
    return isinstance(value, fx.Node) and not is_constant(value) and value.meta.get("shape") == node.meta["shape"]


def _per_channel(graph_module: fx.GraphModule, value: object, node: fx.Node) -> Tensor | None:
    """A constant that is a number or one per channel, as (C,)."""
    channels = node.meta["shape"][1]
    if isinstance(value, int | float):
        return torch.full((channels,), float(value))
    if not is_constant(value):
        return None
    tensor = constant(graph_module, value)
    if tensor.numel() == 1:
        return tensor.reshape(1).expand(channels)
    shape = [1] * (4 - tensor.dim()) + list(tensor.shape)
    return tensor.reshape(channels) if shape == [1, channels, 1, 1] else None


def _grown(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """Zeros around a kernel."""
    high, wide = ((to - side) // 2 for to, side in zip(size, weight.shape[2:], strict=True))
    return functional.pad(weight, (wide, wide, high, high))


def _written(graph_module: fx.GraphModule, node: fx.Node, branch: Branch) -> fx.Node:
    *_, high, wide = branch.weight.shape
    with node.graph.inserting_before(node):
        weight = add_constant(graph_module, f"{node.name}_weight", branch.weight.contiguous())
        bias = add_constant(graph_module, f"{node.name}_bias", branch.bias.contiguous())
    options = ([*branch.stride], [high // 2, wide // 2], [1, 1], branch.groups)
    return call(node, aten.conv2d.default, branch.source, weight, bias, *options)
