"""Let weights absorb constant factors, each of which costs a pass over a feature map: W (c x) = (c W) x.

Forward, into the next weights: a hard-swish is x * relu6(x + 3) times 1/6. Back, into the weights before: a layer scale
(Touvron et al., "Going deeper with Image Transformers", ICCV 2021) has a factor for each channel of what a convolution
or linear gives, and rows of weights are rounded each with a scale of its own, so that int8 loses nothing by it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.edit import constant, is_constant, replace, scale_outputs, set_constant

aten = torch.ops.aten
WEIGHTED = {aten.conv2d.default, aten.linear.default}
LINEAR = {
    aten.mean.dim,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.flatten.using_ints,
    aten.slice.Tensor,
    aten.select.int,
}
"""Ops f of one activation with f(c x) = c f(x)."""

VIEWS = {
    aten.reshape.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
}
"""Ops that keep the numbers in their order."""


def fold_factors(graph_module: fx.GraphModule) -> int:
    """Remove products with a one-element constant whose every reader can absorb it; returns how many."""
    folded = 0
    for node in list(graph_module.graph.nodes):
        factor = _factor(graph_module, node)
        if factor is None:
            continue
        source, value = factor
        if node.users and all(_absorbs(user, node) for user in node.users):
            for user in list(node.users):
                _absorb(graph_module, user, node, value)
            replace(node, source)
            folded += 1
    return folded


def _factor(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Tensor] | None:
    """(x, c) if the node is x * c with a constant c of one element."""
    found = _product(graph_module, node)
    return None if found is None or found[1].numel() != 1 else (found[0], found[1].reshape(()))


def _product(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Tensor] | None:
    """(x, c) if the node is x * c with a constant c that repeats nothing of x."""
    if node.target is not aten.mul.Tensor:
        return None
    for value, source in (node.args[:2], reversed(node.args[:2])):
        if is_constant(value) and isinstance(source, fx.Node) and not is_constant(source):
            return (source, constant(graph_module, value)) if source.meta["shape"] == node.meta["shape"] else None
    return None


def _absorbs(user: fx.Node, source: fx.Node) -> bool:
    if user.target in WEIGHTED:
        return user.args[0] is source and is_constant(user.args[1])
    passes_on = user.target in LINEAR or (user.target is aten.mul.Tensor and user.args[0] is not user.args[1])
    return passes_on and bool(user.users) and all(_absorbs(reader, user) for reader in user.users)


def _absorb(graph_module: fx.GraphModule, user: fx.Node, source: fx.Node, value: Tensor) -> None:
    if user.target in WEIGHTED:
        set_constant(graph_module, user, 1, constant(graph_module, user.args[1]) * value)
    else:
        for reader in list(user.users):
            _absorb(graph_module, reader, user, value)


def fold_scales(graph_module: fx.GraphModule) -> int:
    """Remove products with a constant that has a number per channel of the weights before; returns how many."""
    folded = 0
    for node in list(graph_module.graph.nodes):
        scale = _scale(graph_module, node)
        if scale is None:
            continue
        source, value, dim = scale
        weighted = _source_of(source, dim)
        if weighted is not None:
            scale_outputs(graph_module, weighted, value)
            replace(node, source)
            folded += 1
    return folded


def _scale(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Tensor, int] | None:
    """(x, c, dim) if the node is x * c with a constant c that differs along one dimension of x only."""
    found = _product(graph_module, node)
    if found is None:
        return None
    source, number = found
    first = len(source.meta["shape"]) - number.dim()
    along = [dim for dim, size in enumerate(number.shape, start=first) if size > 1]
    return (source, number.reshape(-1), along[0]) if len(along) == 1 else None


def _source_of(node: fx.Node, dim: int) -> fx.Node | None:
    """The convolution or linear whose channels lie along that dimension of what is only a view of its result."""
    found: tuple[fx.Node, int] | None = (node, dim)
    while found is not None:
        node, dim = found
        if len(node.users) > 1:
            return None
        if node.target in WEIGHTED:
            channels = 1 if node.target is aten.conv2d.default else len(node.meta["shape"]) - 1
            known = all(arg is None or is_constant(arg) for arg in node.args[1:3])
            return node if dim == channels and known else None
        found = _before(node, dim)
    return None


def _before(node: fx.Node, dim: int) -> tuple[fx.Node, int] | None:
    """What a node is a view of, and where a dimension was in it; None if it is none, or joins or splits it."""
    source, *rest = [*node.args, None]
    given: Any = rest
    shape = node.meta["shape"]
    if node.target is aten.permute.default:
        at = given[0][dim] % len(shape)
    elif node.target is aten.transpose.int:
        one, other = given[0] % len(shape), given[1] % len(shape)
        at = {one: other, other: one}.get(dim, dim)
    elif node.target in VIEWS and isinstance(source, fx.Node):
        sizes = source.meta["shape"]
        places = {math.prod(sizes[:place]): place for place, size in enumerate(sizes) if size == shape[dim]}
        at = places.get(math.prod(shape[:dim]))
    else:
        return None
    return (source, at) if isinstance(source, fx.Node) and at is not None else None
