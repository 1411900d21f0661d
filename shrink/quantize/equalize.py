"""Scale channels so that those of one tensor have ranges alike: cross-layer equalization.

One scale and zero point serve a whole tensor, so a channel a hundred times smaller than its neighbour
is left with two or three codes. Where the graph allows it, the weights that make a channel are multiplied
and the weights that read it divided by one number; the float answer stays (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1). The number balances
what the channel suffers as an activation against what its readers' weights suffer, as in Xiao et al.,
"SmoothQuant", 2023, equation 4; readers with a scale of their own per input channel,
as depthwise convolutions have, suffer nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from shrink.graph.channels import NOTHING, Channels, along, channels
from shrink.graph.convolution import by_input, convolution
from shrink.graph.edit import constant, copied, scale_inputs, scale_outputs
from shrink.quantize.ranges import Ends, Range

aten = torch.ops.aten
LARGEST_FACTOR = 2.0**20
ALIKE = 1.05  # factors within this of each other change nothing that can be measured


@dataclass(frozen=True, slots=True)
class Equalized:
    """A graph that answers as before, and the ranges of its values."""

    graph: fx.GraphModule
    ranges: Mapping[str, Range]
    channels: int  # that were scaled


def equalize(
    graph_module: fx.GraphModule, ranges: Mapping[str, Range], held: Collection[str], exponent: float
) -> Equalized | None:
    """Balance the channels that may be scaled; None if there are none, or they are alike already.

    Args:
        graph_module: lowered float graph.
        ranges: of values; those observed per channel say how much to scale.
        held: the values that are held as codes, or rounded at run time.
        exponent: 0.5 to mind activations and weights alike, 1 to mind activations only.
    """
    found = channels(graph_module.graph)
    factors = _factors(graph_module, found, {n: r for n, r in ranges.items() if n in held}, exponent)
    scaled = int(((factors > ALIKE) | (factors < 1 / ALIKE)).sum())
    if not scaled:
        return None
    result = copied(graph_module)
    for node in list(result.graph.nodes):
        if node.name in found.read:
            scale_inputs(result, node, 1 / _of(factors, found.read[node.name]))
        if node.name in found.made:
            _scale_outputs(result, node, _of(factors, found.made[node.name]))
    result.recompile()
    return Equalized(result, {name: _scaled(r, found.values.get(name), factors) for name, r in ranges.items()}, scaled)


def channel_axes(graph: fx.Graph, names: Collection[str]) -> dict[str, int]:
    """The axis of the channels of every named value that has some that may be scaled."""
    found = channels(graph)
    axes: dict[str, int] = {}
    for name in found.values.keys() & set(names):
        labels = found.values[name]
        axis = next((i for i in range(1, labels.dim()) if along(labels, i) is not None), None)
        if axis is not None and found.free[labels[labels != NOTHING]].any():
            axes[name] = axis
    return axes


def _of(factors: Tensor, labels: Tensor) -> Tensor:
    """The factor of each label; 1 for padding."""
    return torch.cat((factors, torch.ones(1)))[labels]


def _factors(graph_module: fx.GraphModule, found: Channels, ranges: Mapping[str, Range], exponent: float) -> Tensor:
    """(labels,) > 0: what to multiply every channel with; 1 where it may not be scaled or nothing is known."""
    activation, weight = torch.zeros(len(found.free)), torch.zeros(len(found.free))
    free = found.free.clone()
    for name, labels in found.values.items():
        if name in ranges:
            ends = ranges[name].ends
            if ends is None:
                free[labels[labels != NOTHING]] = False  # its range after scaling would not be known
            else:
                _raise(activation, along(labels, ends.axis), torch.maximum(-ends.low, ends.high))
    for node in graph_module.graph.nodes:
        if node.name in found.read and not _has_scale_per_input(node):
            _raise(weight, found.read[node.name], _columns(node, constant(graph_module, node.args[1])))
    factors = torch.where(weight > 0, weight ** (1 - exponent) / activation**exponent, 1 / activation)
    factors = factors.clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    return torch.where(free & (activation > 0), factors, torch.ones_like(factors))


def _raise(sizes: Tensor, labels: Tensor | None, found: Tensor) -> None:
    """Note the sizes found, relative to the largest of them, where they are the largest of their label so far."""
    assert labels is not None
    used = labels != NOTHING
    relative = found / found.max().clamp_min(torch.finfo(torch.float32).tiny)
    sizes.scatter_reduce_(0, labels[used], relative[used], "amax")


def _has_scale_per_input(node: fx.Node) -> bool:
    """A depthwise convolution: every output channel, which has its scale, reads one input channel."""
    if node.target is not aten.conv2d.default:
        return False
    read = convolution(node)
    return bool(read.groups == read.weight.meta["shape"][0])


def _columns(node: fx.Node, weight: Tensor) -> Tensor:
    """(C,) largest weight that reads each input channel."""
    return by_input(node, weight).abs().amax((1, 3)).flatten()


def _scale_outputs(graph_module: fx.GraphModule, node: fx.Node, factors: Tensor) -> None:
    scale_outputs(graph_module, node, factors, first=2 if node.target is aten.layer_norm.default else 1)


def _scaled(found: Range, labels: Tensor | None, factors: Tensor) -> Range:
    if found.ends is None or labels is None:
        return found
    channel = along(labels, found.ends.axis)
    assert channel is not None  # it has one axis, or it would not have been observed along it
    by = _of(factors, channel)
    ends = Ends(found.ends.axis, found.ends.low * by, found.ends.high * by)
    return replace(found, low=float(ends.low.min()), high=float(ends.high.max()), ends=ends)
