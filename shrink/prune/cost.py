"""Multiply-accumulates and parameters of a graph, and what they become as dimensions shrink."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from shrink.graph.edit import is_constant

aten = torch.ops.aten
Dim = tuple[fx.Node, int]
"""A dimension of a value: its node, and an axis from 0."""


def factors(node: fx.Node) -> list[list[Dim]]:
    """The multiply-accumulates of an op as sums of products of dimensions; nothing for an op without any."""
    rule = FACTORS.get(node.target)
    return [] if rule is None else rule(node)


def macs(graph_module: fx.GraphModule) -> int:
    """Multiply-accumulates of one image: convolutions, linears and matrix products."""
    return sum(macs_of(node) for node in graph_module.graph.nodes)


def macs_of(node: fx.Node) -> int:
    """Multiply-accumulates of one op."""
    return sum(math.prod(source.meta["shape"][axis] for source, axis in term) for term in factors(node))


def work(graph_module: fx.GraphModule) -> float:
    """How long an image takes in PyTorch, in multiply-accumulates: writing a value takes as long as some of them.

    30 is what EfficientNet-Lite0 and ViT-Tiny took on x86-64, to a factor of 1.3.
    """
    written: int = sum(math.prod(node.meta["shape"]) for node in writers(graph_module))
    return macs(graph_module) + 30 * written


def writers(graph_module: fx.GraphModule) -> Iterator[fx.Node]:
    """The nodes that compute a value."""
    yield from (node for node in graph_module.graph.nodes if node.op == "call_function" and "shape" in node.meta)


def parameters(graph_module: fx.GraphModule) -> int:
    """Numbers in the graph's constants."""
    constants = {str(node.target): node for node in graph_module.graph.nodes if is_constant(node)}
    return sum(math.prod(node.meta["shape"]) for node in constants.values())


def dims(node: Any) -> Iterator[Dim]:
    """All dimensions of a value."""
    yield from ((node, axis) for axis in range(len(node.meta["shape"])))


def _weighted(node: fx.Node) -> list[list[Dim]]:
    """Each place of the output times the weight."""
    channel = 1 if node.target is aten.conv2d.default else len(node.meta["shape"]) - 1
    return [[*((node, axis) for _, axis in dims(node) if axis != channel), *dims(node.args[1])]]


def _matmul(node: fx.Node) -> list[list[Dim]]:
    a: Any = node.args[0]
    return [[*dims(node), (a, len(a.meta["shape"]) - 1)]]


def _attention(node: fx.Node) -> list[list[Dim]]:
    """Queries with keys, then the weights with values."""
    query, key, _ = node.args[:3]
    inner, tokens = (query, len(query.meta["shape"]) - 1), (key, len(key.meta["shape"]) - 2)  # type: ignore[union-attr]
    places = list(dims(node))[:-1]
    return [[*places, tokens, inner], [*places, tokens, (node, len(places))]]  # type: ignore[list-item]


FACTORS: dict[object, Callable[[fx.Node], list[list[Dim]]]] = {
    aten.conv2d.default: _weighted,
    aten.linear.default: _weighted,
    aten.matmul.default: _matmul,
    aten.bmm.default: _matmul,
    aten.scaled_dot_product_attention.default: _attention,
}
