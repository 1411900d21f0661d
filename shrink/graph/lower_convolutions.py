"""Rewrites of convolutions into ops that a runtime is faster at."""

from __future__ import annotations

import torch
from torch import fx

from shrink.graph.convolution import convolution
from shrink.graph.edit import add_constant, call, constant, is_constant, replace
from shrink.graph.pixels import SEQUENCE

aten = torch.ops.aten


def patches_to_linear(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A convolution over patches that do not overlap, whose result is read as a sequence, as a linear.

    ONNX Runtime's integer convolution must answer in codes, and a transformer's residual stream starts
    with this answer; its integer matrix product may answer in float.
    """
    conv = convolution(node)
    out, channels, *patch = conv.weight.meta["shape"]
    *_, height, width = conv.x.meta["shape"]
    high, wide = patch
    apart = conv.stride == (high, wide) and conv.padding == (0, 0) and conv.dilation == (1, 1) and conv.groups == 1
    whole = height % high == 0 and width % wide == 0
    as_sequence = all(user.target in SEQUENCE for user in node.users)
    if not (apart and whole and as_sequence and high * wide > 4):
        return None
    rows, columns = height // high, width // wide
    tiles = call(node, aten.reshape.default, conv.x, [1, channels, rows, high, columns, wide])
    moved = call(node, aten.permute.default, tiles, [0, 2, 4, 1, 3, 5])
    flat = call(node, aten.reshape.default, moved, [1, rows * columns, channels * high * wide])
    with node.graph.inserting_before(node):
        matrix = add_constant(graph_module, f"{node.name}_matrix", constant(graph_module, conv.weight).flatten(1))
    tokens = call(node, aten.linear.default, flat, matrix, conv.bias)
    back = call(node, aten.permute.default, tokens, [0, 2, 1])
    return call(node, aten.reshape.default, back, [1, out, rows, columns])


def split_multiples(graph_module: fx.GraphModule) -> int:
    """Depthwise convolutions that answer with several channels for each they read, as several with one each, in place.

    Runtimes have quick kernels for one only. They compute more as a full convolution per channel: 25 of the 40 ms of
    FastViT-T8 in int8 on a processor with AMX, which multiplies 16 x 64 values at once and is given one.

    Returns:
        How many there were.
    """
    found = [node for node in graph_module.graph.nodes if node.target is aten.conv2d.default]
    return sum(_split_multiple(graph_module, node) for node in found)


def _split_multiple(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    conv = convolution(node)
    out, each, *size = conv.weight.meta["shape"]
    count = out // conv.groups
    if not conv.is_depthwise or count == 1 or not is_constant(conv.weight):
        return False
    weight = constant(graph_module, conv.weight).reshape(conv.groups, count, each, *size)
    bias = None if conv.bias is None else constant(graph_module, conv.bias).reshape(conv.groups, count)
    _, _, *places = node.meta["shape"]
    parts = []
    for number in range(count):
        with node.graph.inserting_before(node):
            given = [add_constant(graph_module, f"{node.name}_weight", weight[:, number].contiguous()), None]
            if bias is not None:
                given[1] = add_constant(graph_module, f"{node.name}_bias", bias[:, number].contiguous())
        options = ([*conv.stride], [*conv.padding], [*conv.dilation], conv.groups)
        parts.append(call(node, aten.conv2d.default, conv.x, *given, *options))
    apart = call(node, aten.reshape.default, call(node, aten.cat.default, parts, 1), [1, count, conv.groups, *places])
    paired = call(node, aten.permute.default, apart, [0, 2, 1, 3, 4])
    replace(node, call(node, aten.reshape.default, paired, [1, out, *places]))
    return True


MOST_TAPS = 25
"""Of a depthwise kernel: XNNPACK has quick ones for up to 25, and computes larger ones as general convolutions."""


def big_depthwise(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A depthwise convolution of many taps as the sum of some with fewer rows, 2 to 18 times faster in XNNPACK."""
    conv = convolution(node)
    rows, columns = conv.weight.meta["shape"][2:]
    if not conv.is_depthwise or rows * columns <= MOST_TAPS or columns > MOST_TAPS:
        return None
    high, wide = conv.padding
    padded = call(node, aten.constant_pad_nd.default, conv.x, [wide, wide, high, high], 0.0) if high or wide else conv.x
    total, each = None, MOST_TAPS // columns
    for first in range(0, rows, each):
        last = min(first + each, rows) - 1
        taps = constant(graph_module, conv.weight)[:, :, first : last + 1]
        with node.graph.inserting_before(node):
            weight = add_constant(graph_module, f"{node.name}_rows", taps.contiguous())
        reached = (node.meta["shape"][2] - 1) * conv.stride[0] + last * conv.dilation[0] + 1
        seen = call(node, aten.slice.Tensor, padded, 2, first * conv.dilation[0], reached)
        options = ([*conv.stride], [0, 0], [*conv.dilation], conv.groups)
        term = call(node, aten.conv2d.default, seen, weight, None if total else conv.bias, *options)
        total = call(node, aten.add.Tensor, total, term) if total else term
    return total
