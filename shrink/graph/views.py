"""Follow the channels of one value through all that only moves its numbers: reshapes, splits, concatenations, rolls."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.channels import VIEWS, spread
from shrink.graph.edit import is_constant

aten = torch.ops.aten
CHANNELS: dict[object, int] = {aten.conv2d.default: 1, aten.linear.default: -1}
"""Ops with weights, and the axis of their channels, of what they read as of what they give."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Where the channels of a value are.

    Attributes:
        count: C.
        labels: the value, and every view of it -> the channel of each number, in its shape.
        readers: the ops that compute something of them, in graph order.
    """

    count: int
    labels: Mapping[fx.Node, Tensor | Sequence[Tensor]]
    readers: Sequence[fx.Node]

    def read_by(self, reader: fx.Node) -> Tensor:
        """(C,) bool: the channels that an op reads."""
        read = torch.zeros(self.count, dtype=torch.bool)
        for node in self.labels.keys() & set(reader.all_input_nodes):
            labels = self.labels[node]
            for part in [labels] if isinstance(labels, Tensor) else labels:
                read[part] = True
        return read


def follow(node: fx.Node, axis: int) -> Followed:
    """Follow the channels that lie along an axis of a value of known shape."""
    shape: tuple[int, ...] = node.meta["shape"]
    channels = spread(torch.arange(shape[axis]), axis, len(shape)).expand(shape)
    labels: dict[fx.Node, Tensor | Sequence[Tensor]] = {node: channels}
    readers: list[fx.Node] = []
    for user in node.graph.nodes:
        if labels.keys().isdisjoint(user.all_input_nodes):
            continue
        if is_view(user) and labels.keys() >= set(user.all_input_nodes):
            move: Any = user.target
            labels[user] = move(*fx.map_arg(user.args, labels.__getitem__), **user.kwargs)
        else:
            readers.append(user)
    return Followed(shape[axis], labels, readers)


def has_weights(node: fx.Node) -> bool:
    """Whether it is a convolution or linear whose weight and bias are constants."""
    return node.target in CHANNELS and all(arg is None or is_constant(arg) for arg in node.args[1:3])


def is_view(node: fx.Node) -> bool:
    """Whether a node only moves numbers, or takes a part of what does."""
    return node.target is operator.getitem or node.target in VIEWS
