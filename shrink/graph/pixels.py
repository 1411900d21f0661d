"""Let the codes of an int8 model's input be the grey levels of the image.

A normalized pixel is (p / 255 - mean) / std for a grey level p. Codes that must hold 0 exactly fall
between these values, at worst half a step from every one (mean 0.5), and with three channels of
unlike std one scale cannot fit all. Undoing the normalization in front of the first convolution, and
redoing it in its weights, makes codes and grey levels the same numbers: the input is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from shrink.graph.convolution import convolution
from shrink.graph.edit import FIXED_RANGE, KEEP_FLOAT, add_constant, call, constant, is_constant

aten = torch.ops.aten
LEVELS = (0.0, 255.0)
SEQUENCE = (aten.reshape.default, aten.flatten.using_ints, aten.permute.default)
"""Readers of a convolution that turns patches into tokens."""


def align_to_pixels(
    graph_module: fx.GraphModule, mean: Sequence[float], std: Sequence[float], *, patches: bool = False
) -> bool:
    """Rewrite the first convolution to read grey levels; returns whether it could.

    It can when the image goes to one ordinary convolution only, perhaps padded with zeros before.

    Args:
        graph_module: lowered graph of one normalized image (1, C, H, W).
        mean, std: of the normalization, per channel.
        patches: whether the patch embedding of a transformer may be it; its input range is else taken at run time.
    """
    image = next(node for node in graph_module.graph.nodes if node.op == "placeholder")
    found = _first_convolution(image, patches)
    if found is None:
        return False
    source, conv = found
    read = convolution(conv)
    weight = constant(graph_module, read.weight)
    bias = torch.zeros(len(weight)) if read.bias is None else constant(graph_module, read.bias)
    gain = (torch.tensor(std) * 255).reshape(1, -1, 1, 1)
    offset = (torch.tensor(mean) * 255).reshape(1, -1, 1, 1)
    if any(read.padding):  # padding is 0 in normalized values, the mean in grey levels: pad before undoing
        high, wide = read.padding
        source = call(conv, aten.constant_pad_nd.default, source, [wide, wide, high, high], 0.0)
    with conv.graph.inserting_before(conv):
        factor, shift = (add_constant(graph_module, f"pixels_{n}", v) for n, v in (("gain", gain), ("offset", offset)))
    spread = call(conv, aten.mul.Tensor, source, factor)
    levels = call(conv, aten.add.Tensor, spread, shift)
    for node in (source, spread, levels):
        node.meta[KEEP_FLOAT] = True
    levels.meta[FIXED_RANGE] = LEVELS
    scaled = weight / gain
    with conv.graph.inserting_before(conv):
        new_weight = add_constant(graph_module, "pixels_weight", scaled)
        new_bias = add_constant(graph_module, "pixels_bias", bias - (scaled * offset).sum((1, 2, 3)))
    conv.args = (levels, new_weight, new_bias, list(read.stride), [0, 0], list(read.dilation), read.groups)
    return True


def reads_levels(graph_module: fx.GraphModule) -> bool:
    """Whether the first convolution of a graph reads grey levels."""
    return any(node.meta.get(FIXED_RANGE) == LEVELS for node in graph_module.graph.nodes)


def _first_convolution(image: fx.Node, patches: bool) -> tuple[fx.Node, fx.Node] | None:
    """(what it reads, the convolution), or None if the image takes another way."""
    source = image
    user = _only_user(source)
    if user is not None and user.target is aten.constant_pad_nd.default and not any(user.args[2:]):
        source, user = user, _only_user(user)
    if user is None or user.target is not aten.conv2d.default or not is_constant(user.args[1]):
        return None
    return (source, user) if convolution(user).groups == 1 and (patches or not starts_a_sequence(user)) else None


def starts_a_sequence(conv: fx.Node) -> bool:
    """Whether it turns patches into tokens, as the embedding of a transformer does."""
    return all(reader.target in SEQUENCE for reader in conv.users)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
