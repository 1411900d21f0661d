"""How the image enters the graph of a file: its layout, and whether it is normalized.

A captured graph takes a normalized image (1, C, H, W). A camera gives bytes, most often (H, W, C).
Normalizing is p -> (p / 255 - mean) / std per channel: a first convolution that reads grey levels
already (`pixels.py`) reads the image itself; any other graph gets a product and a sum in front.
This is the last thing done to a graph, so that calibration and choice do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx

from shrink.graph.clean import tidy
from shrink.graph.edit import FIXED_RANGE, add_constant, call, copied, replace
from shrink.graph.pixels import LEVELS
from shrink.graph.shapes import annotate_shapes, input_shape

aten = torch.ops.aten
Layout = Literal["NHWC", "NCHW"]
Normalization = tuple[Sequence[float], Sequence[float]]
"""Mean and std per channel, of pixels in 0..1."""

Hold = Callable[[fx.Node], fx.Node]
"""Gives the node to read for a value: the value itself, or the same behind 8-bit codes."""


def with_entrance(
    graph_module: fx.GraphModule, *, layout: Layout = "NCHW", normalization: Normalization | None = None
) -> fx.GraphModule:
    """A copy of a float or quantized graph that takes its image in another form; weights are shared.

    Args:
        graph_module: takes one normalized float32 image (1, C, H, W).
        layout: of the image it is to take.
        normalization: makes it take grey levels, float32 numbers 0..255.
    """
    result = copied(graph_module)
    batch, channels, height, width = input_shape(result)
    image = next(node for node in result.graph.nodes if node.op == "placeholder")
    given = {"NHWC": (batch, height, width, channels), "NCHW": (batch, channels, height, width)}[layout]
    image.meta["shape"] = given
    levels = next((node for node in result.graph.nodes if node.meta.get(FIXED_RANGE) == LEVELS), None)
    if normalization is not None and levels is not None:
        _connect(result, image, levels, layout, normalization[0])
    else:
        readers, at = list(image.users), image.next
        value = _laid_out(image, layout, at, hold=lambda node: node)
        if normalization is not None:
            value = _normalized(result, value, at, *normalization)
        for reader in readers:
            reader.replace_input_with(image, value)
    tidy(result)
    annotate_shapes(result, torch.zeros(given))
    return result


def _laid_out(image: fx.Node, layout: Layout, at: fx.Node, hold: Hold) -> fx.Node:
    """The image as (1, C, H, W)."""
    value = hold(image)
    return hold(call(at, aten.permute.default, value, [0, 3, 1, 2])) if layout == "NHWC" else value


def _normalized(
    graph_module: fx.GraphModule, value: fx.Node, at: fx.Node, mean: Sequence[float], std: Sequence[float]
) -> fx.Node:
    """p / (255 std) - mean / std."""
    numbers = torch.tensor([mean, std], dtype=torch.float64).reshape(2, 1, -1, 1, 1)
    factor = _constant(graph_module, at, 1 / (255 * numbers[1]))
    shift = _constant(graph_module, at, -numbers[0] / numbers[1])
    return call(at, aten.add.Tensor, call(at, aten.mul.Tensor, value, factor), shift)


def _constant(graph_module: fx.GraphModule, at: fx.Node, value: Tensor) -> fx.Node:
    with at.graph.inserting_before(at):
        return add_constant(graph_module, "entrance", value.to(torch.float32).contiguous())


def _connect(
    graph_module: fx.GraphModule, image: fx.Node, levels: fx.Node, layout: Layout, mean: Sequence[float]
) -> None:
    """Let the reader of `levels` = pad(image) * gain + offset read the image itself, with the mean around it.

    If it reads codes, these are the grey levels, and every step is held in them: it changes no value.
    """
    codes = next((user for user in levels.users if "quantize_per_tensor" in str(user.target)), None)
    back = levels if codes is None else next(iter(codes.users))

    def hold(node: fx.Node) -> fx.Node:
        if codes is None:
            return node
        return call(levels, back.target, call(levels, codes.target, node, *codes.args[1:]), *codes.args[1:])

    value = _laid_out(image, layout, levels, hold)
    product: Any = levels.args[0]
    if (padded := product.args[0]) is not image:
        value = _framed(graph_module, value, padded.args[1], mean, levels, hold)
    replace(back, value)


def _framed(
    graph_module: fx.GraphModule,
    value: fx.Node,
    pads: Sequence[int],
    mean: Sequence[float],
    at: fx.Node,
    hold: Hold,
) -> fx.Node:
    """`value`, (1, C, H, W), with grey levels of the mean around it, (left, right, top, bottom) of them.

    Constants joined on: channels have unlike means, and no runtime pads with more than one number.
    """
    left, right, top, bottom = [*pads, 0, 0][:4]
    _, channels, height, width = value.meta["shape"]
    border = 255 * torch.tensor(mean, dtype=torch.float64).reshape(1, -1, 1, 1)
    for axis, sizes, high, wide in ((3, (left, right), height, 0), (2, (top, bottom), 0, left + width + right)):
        sides = [border.expand(1, channels, high or size, wide or size) for size in sizes]
        before, behind = ([hold(_constant(graph_module, at, s))] if s.numel() else [] for s in sides)
        if before or behind:
            value = hold(call(at, aten.cat.default, [*before, value, *behind], axis))
    return value
