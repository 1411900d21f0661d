"""Push constant factors forward until the next weights absorb them.

A hard-swish is x * relu6(x + 3) times 1/6. That last product costs a pass over the feature map,
while the convolution behind it can carry the 1/6 in its weights: W (c x) = (c W) x.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from shrink.graph.edit import add_constant, constant, is_constant, replace

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
    if node.target is not aten.mul.Tensor:
        return None
    for value, source in (node.args[:2], reversed(node.args[:2])):
        if is_constant(value) and isinstance(source, fx.Node) and not is_constant(source):
            number = constant(graph_module, value)
            if number.numel() == 1 and source.meta["shape"] == node.meta["shape"]:
                return source, number.reshape(())
    return None


def _absorbs(user: fx.Node, source: fx.Node) -> bool:
    if user.target in WEIGHTED:
        return user.args[0] is source and is_constant(user.args[1])
    passes_on = user.target in LINEAR or (user.target is aten.mul.Tensor and user.args[0] is not user.args[1])
    return passes_on and bool(user.users) and all(_absorbs(reader, user) for reader in user.users)


def _absorb(graph_module: fx.GraphModule, user: fx.Node, source: fx.Node, value: Tensor) -> None:
    if user.target in WEIGHTED:
        with graph_module.graph.inserting_before(user):
            scaled = add_constant(graph_module, f"{user.name}_weight", constant(graph_module, user.args[1]) * value)
        user.update_arg(1, scaled)
    else:
        for reader in list(user.users):
            _absorb(graph_module, reader, user, value)
