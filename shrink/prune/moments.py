"""What a layer reads: rows of inputs, and their second moments over calibration images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from shrink.graph.batch import Walk
from shrink.graph.convolution import convolution, patches
from shrink.graph.edit import constant, is_constant

aten = torch.ops.aten
LARGEST = 4608  # inputs per output; above it a (K, K) matrix costs more than it can bring


def fits(node: fx.Node) -> bool:
    """Whether a layer's outputs are one linear function of all its inputs: a linear, an ungrouped convolution."""
    if node.target is aten.linear.default:
        return is_constant(node.args[1]) and node.args[1].meta["shape"][1] < LARGEST  # type: ignore[union-attr]
    if node.target is not aten.conv2d.default:
        return False
    c = convolution(node)
    return is_constant(c.weight) and c.groups == 1 and math.prod(c.weight.meta["shape"][1:]) < LARGEST


def flat_weight(graph_module: fx.GraphModule, node: fx.Node) -> Tensor:
    """Weight and bias of a layer as (O, K + 1)."""
    weight = constant(graph_module, node.args[1]).flatten(1)
    bias = node.args[2] if len(node.args) > 2 else None
    last = weight.new_zeros(len(weight)) if bias is None else constant(graph_module, bias)
    return torch.cat([weight, last[:, None]], 1)


def input_rows(node: fx.Node, x: Tensor, per_image: int) -> Tensor:
    """Inputs of a layer as rows (R, K + 1) that its flat weight and then its bias multiply.

    Args:
        node: a layer that `fits`.
        x: its input with the images as first dimension, (N, 1, ...).
        per_image: at most about so many places of each image.
    """
    rows = x.flatten(1, -2) if node.target is aten.linear.default else patches(node, x.flatten(0, 1))
    rows = thin(rows, per_image).flatten(0, 1)
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)


def output_rows(node: fx.Node, y: Tensor, per_image: int) -> Tensor:
    """Outputs of the same places, (R, O)."""
    rows = y.flatten(1, -2) if node.target is aten.linear.default else y.flatten(0, 1).flatten(2).transpose(1, 2)
    return thin(rows, per_image).flatten(0, 1)


def thin(rows: Tensor, per_image: int) -> Tensor:
    """(N, places, K) with fewer places; an odd step does not keep to one column of an even-sized map."""
    return rows[:, :: (rows.shape[1] // per_image) | 1] if rows.shape[1] > per_image else rows


@dataclass(slots=True)
class Moments:
    """Mean of x x' over rows x of a layer's inputs and a last 1, (K + 1, K + 1)."""

    second: Tensor
    rows: int = 0

    def add(self, rows: Tensor) -> None:
        total = self.rows + len(rows)
        self.second += (rows.T @ rows - len(rows) * self.second) / total
        self.rows = total


def moments(graph_module: fx.GraphModule, batches: Iterable[Tensor], *, per_image: int) -> Mapping[fx.Node, Moments]:
    """Second moments of every layer that fits; memory does not grow with the number of images.

    Args:
        graph_module: the float graph.
        batches: images, (N, C, H, W).
        per_image: places of each image that enter.
    """
    found: dict[fx.Node, Moments] = {}
    for images in batches:
        walk = Walk(graph_module, images)
        for node in walk.calls():
            if fits(node):
                rows = input_rows(node, walk.read(node.args[0]), per_image)
                width = rows.shape[1]
                found.setdefault(node, Moments(rows.new_zeros(width, width))).add(rows)
            walk.step(node)
    return found
