"""The tokens that a graph and a smaller one made of it both compute."""

from __future__ import annotations

import torch
from torch import fx

FEWEST, MOST = 2, 1024  # tokens: the relations of more than that would not fit in memory


def shared_tokens(whole: fx.GraphModule, small: fx.GraphModule) -> tuple[str, ...]:
    """Names of the values (..., T, C) that layer norms of both graphs read, as many tokens in each; C may differ."""
    theirs = _tokens(whole)
    return tuple(name for name, shape in _tokens(small).items() if theirs.get(name) == shape)


def _tokens(graph_module: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    """Name -> shape without the last axis."""
    calls = (node for node in graph_module.graph.nodes if node.target is torch.ops.aten.layer_norm.default)
    read = {call.args[0].name: tuple(call.args[0].meta["shape"][:-1]) for call in calls if len(call.args[1]) == 1}
    return {name: shape for name, shape in read.items() if len(shape) > 1 and FEWEST <= shape[-1] <= MOST}
