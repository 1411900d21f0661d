"""One linear for queries, keys and values becomes one for each, so that each may have a width of its own.

Where a fused linear is split by a reshape to (3, heads, width), all three must have the same width. Queries and
keys usually need less than values. The answers stay the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.clean import tidy
from shrink.graph.edit import add_constant, call, constant
from shrink.graph.shapes import annotate_shapes, input_shape
from shrink.prune.moments import fits
from shrink.prune.products import LAYOUT, PICKS, rearrange
from shrink.prune.trace import shape_of

aten = torch.ops.aten


def unfuse(graph_module: fx.GraphModule) -> int:
    """Change the graph in place; how many linears were taken apart."""
    found = 0
    for node in list(graph_module.graph.nodes):
        if node.target is aten.linear.default and fits(node):
            parts = _parts(node)
            for number, (pick, rows) in enumerate(parts.items()):
                _read_alone(graph_module, node, number, pick, rows)
            found += bool(parts)
    if found:
        tidy(graph_module)
        annotate_shapes(graph_module, torch.zeros(input_shape(graph_module)))
    return found


def _parts(layer: fx.Node) -> dict[fx.Node, Tensor]:
    """The nodes that pick some outputs as (..., heads, places, D), and which: (heads, D). Empty if any is unlike."""
    shape, node = shape_of(layer), layer
    found: Any = torch.arange(shape[-1]).expand(shape)
    while len(node.users) == 1 and next(iter(node.users)).target in LAYOUT - PICKS:
        (node,) = node.users
        found = rearrange(node, found)
    if len(node.users) < 2 or len(shape) < 2 or any(user.target not in PICKS for user in node.users):
        return {}
    parts = {}
    for pick in node.users:
        value = rearrange(pick, found)
        if value.dim() != len(shape) + 1 or value.shape[:-3] != shape[:-2] or value.shape[-2] != shape[-2]:
            return {}
        parts[pick] = value.flatten(0, -4)[0, :, 0] if value.dim() > 3 else value[:, 0]
        if (value != parts[pick][:, None]).any():
            return {}
    every = torch.cat([rows.flatten() for rows in parts.values()])
    return parts if every.bincount().max() == 1 else {}


def _read_alone(graph_module: fx.GraphModule, layer: fx.Node, number: int, pick: fx.Node, rows: Tensor) -> None:
    """A linear with these rows alone, and its outputs as heads, in place of `pick`."""
    heads, width = rows.shape
    x: Any = layer.args[0]
    with graph_module.graph.inserting_before(layer):
        given = [
            add_constant(graph_module, f"{source.target}_{number}", constant(graph_module, source)[rows.flatten()])
            for source in layer.args[1:]
            if isinstance(source, fx.Node)
        ]
        alone = graph_module.graph.call_function(aten.linear.default, (x, *given))
        alone.meta.update(layer=layer.meta.get("layer", "") or layer.name)
    split = call(pick, aten.reshape.default, alone, [*shape_of(layer)[:-1], heads, width])
    pick.replace_all_uses_with(call(pick, aten.transpose.int, split, -3, -2))
