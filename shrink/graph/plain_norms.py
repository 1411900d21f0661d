"""Norms over the places of an image, written op by op; layer norms and batch norms are others' matter.

litert-torch writes a group norm with BROADCAST_TO, where XNNPACK's graph is cut in two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from shrink.graph.edit import KEEP_FLOAT, constant, replace
from shrink.graph.scribe import Scribe

aten = torch.ops.aten


def write_norms(graph_module: fx.GraphModule, *, in_float: bool = True) -> int:
    """Rewrite group and instance norms, in place; returns how many.

    Args:
        in_float: keep the means of a group out of any int8 region; a file of integers alone cannot.
    """
    norms = [node for node in graph_module.graph.nodes if node.target in NORMS and len(node.meta["shape"]) == 4]
    return sum(_write(graph_module, node, in_float) for node in norms)


def _write(graph_module: fx.GraphModule, node: fx.Node, in_float: bool) -> bool:
    parts = NORMS[node.target](node)
    if parts is None:
        return False
    new = _normalized(graph_module, node, parts, in_float)
    replace(node, new)
    return True


@dataclass(frozen=True, slots=True)
class _Norm:
    x: fx.Node
    groups: int
    affine: tuple[Any, Any]  # weight and bias, or None
    eps: float


def _group_norm(node: fx.Node) -> _Norm:
    """Over the places and the channels of a group; Wu and He 2018."""
    args: tuple[Any, ...] = node.args
    x, groups, weight, bias, eps = args[:5] + (None, None, 1e-5)[len(args) - 2 :]
    return _Norm(x, groups, (weight, bias), eps)


def _instance_norm(node: fx.Node) -> _Norm | None:
    """A group norm whose groups are channels; Ulyanov et al. 2016."""
    args: tuple[Any, ...] = node.args
    x, weight, bias, _, _, own_statistics, _, eps = args[:8]
    return _Norm(x, node.meta["shape"][1], (weight, bias), eps) if own_statistics else None


def _normalized(graph_module: fx.GraphModule, node: fx.Node, norm: _Norm, in_float: bool) -> fx.Node:
    """(x - mean) / sqrt(variance + eps) weight + bias."""
    write = Scribe(graph_module, node)
    channels, groups = node.meta["shape"][1], norm.groups
    each = channels // groups

    def shared(value: fx.Node) -> fx.Node:
        """The mean over places and the channels of each group, once per channel.

        Channels are averaged, and their mean handed out again, by convolutions in groups over the one place left:
        a reshape would have the converter turn the image's axes, twice.
        """
        mean = write(aten.mean.dim, value, [2, 3], True)
        if groups == channels:
            return mean
        for numbers in (torch.full((groups, each, 1, 1), 1 / each), torch.ones(channels, 1, 1, 1)):
            weights = write.held(numbers)
            mean = write(aten.conv2d.default, mean, weights, None, [1, 1], [0, 0], [1, 1], groups)
            mean.meta[KEEP_FLOAT] = in_float
        return mean

    centred = write.sub(norm.x, shared(norm.x))
    scale = write(aten.rsqrt.default, write.add(shared(write.mul(centred, centred)), norm.eps))
    weight, bias = (
        None if part is None else write.held(constant(graph_module, part).reshape(1, channels, 1, 1))
        for part in norm.affine
    )
    found = write.mul(centred, scale if weight is None else write.mul(scale, weight))
    return found if bias is None else write.add(found, bias)


NORMS: Mapping[Any, Callable[[fx.Node], _Norm | None]] = {
    aten.group_norm.default: _group_norm,
    aten.instance_norm.default: _instance_norm,
}
