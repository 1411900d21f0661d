"""Attention head by head: which outputs of which linears meet as queries and keys, and which carry the values.

Found in the graph, however it is written: fused or separate linears, PyTorch's attention or two products.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from shrink.prune.moments import Moments, fits, flat_weight
from shrink.prune.trace import shape_of

aten = torch.ops.aten

PARTS = {aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default}
PICKS = {operator.getitem, aten.select.int, aten.slice.Tensor}
LAYOUT = {aten.reshape.default, aten.permute.default, aten.transpose.int, aten.unflatten.int, *PARTS, *PICKS}
SCALES = {aten.mul.Scalar, aten.div.Scalar, aten.mul.Tensor, aten.div.Tensor}
"""With a number, they scale a head as a whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Outputs of a linear, head by head."""

    layer: fx.Node
    rows: Tensor  # (H, D)

    @property
    def place(self) -> tuple[str, int]:
        """The dimension of the weight that these rows are of."""
        return str(self.layer.args[1].target), 0  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Row i of a head on the left is multiplied by row i of that head on the right, and summed over i."""

    left: Heads
    right: Heads

    def covariances(
        self, graph_module: fx.GraphModule, gathered: Mapping[fx.Node, Moments], head: int
    ) -> tuple[Tensor, Tensor]:
        """Second moments (D, D) of the left, and of the right about its mean, which softmax does not see."""
        left, right = (flat_weight(graph_module, h.layer)[h.rows[head]].double() for h in (self.left, self.right))
        seconds = [gathered[h.layer].second.double() for h in (self.left, self.right)]
        centred = seconds[1] - torch.outer(seconds[1][:, -1], seconds[1][:, -1])
        return left @ seconds[0] @ left.T, right @ centred @ right.T

    def shares(self, graph_module: fx.GraphModule, gathered: Mapping[fx.Node, Moments]) -> Tensor:
        """(outputs of the left,) share of the product's mean square that each row brings."""
        found = torch.zeros(shape_of(self.left.layer)[-1], dtype=torch.float64)
        for head, rows in enumerate(self.left.rows):
            left, right = self.covariances(graph_module, gathered, head)
            found[rows] = left.diagonal() * right.diagonal()
        return found / found.sum().clamp_min(1e-30)


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Rows of a linear that reach a later linear as they are or averaged over places: its columns."""

    writer: Heads
    reader: fx.Node
    columns: Tensor  # (H, D)


def products(graph_module: fx.GraphModule) -> list[Product]:
    """Where two linears meet in a product."""
    found = []
    for node in graph_module.graph.nodes:
        if node.target is aten.scaled_dot_product_attention.default:
            pair = _rows(node.args[0]), _rows(node.args[1])
        elif node.target in (aten.matmul.default, aten.bmm.default):
            pair = _rows(node.args[0]), _rows(node.args[1], width=-2)
        else:
            continue
        if pair[0] is not None and pair[1] is not None and len(pair[0].rows) == len(pair[1].rows):
            met = _distinct(pair[0].rows, pair[1].rows)
            if met is not None:
                found.append(Product(Heads(pair[0].layer, met[0]), Heads(pair[1].layer, met[1])))
    return found


def values(graph_module: fx.GraphModule) -> list[Values]:
    """Where attention mixes the places of a linear's outputs, and another linear reads them."""
    found = []
    for node in graph_module.graph.nodes:
        at = {aten.scaled_dot_product_attention.default: 2, aten.matmul.default: 1, aten.bmm.default: 1}.get(
            node.target
        )
        writer = None if at is None else _rows(node.args[at])
        read = None if writer is None else _columns(node)
        if writer is None or read is None or len(read[1]) != len(writer.rows):
            continue
        met = _distinct(writer.rows, read[1])
        if met is not None:
            found.append(Values(Heads(writer.layer, met[0]), read[0], met[1]))
    return found


def _distinct(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor] | None:
    """The different heads among all, such as those of many windows; None if one row is in two of them."""
    both = torch.unique(torch.cat([left, right], 1), dim=0)
    parts = both[:, : left.shape[1]], both[:, left.shape[1] :]
    return parts if all(len(part.unique()) == part.numel() for part in parts) else None


def _rows(node: Any, width: int = -1) -> Heads | None:
    """Which outputs of a linear a value holds, (heads, D); None if it is anything else than these, rearranged."""
    path = [node]
    while path[-1].target in LAYOUT or _is_scale(path[-1]):
        path.append(path[-1].args[0])
    layer = path.pop()
    if layer.target is not aten.linear.default or not fits(layer):
        return None
    found: Any = torch.arange(shape_of(layer)[-1]).expand(shape_of(layer))
    others: list[Tensor] = []
    before = layer
    for step in reversed(path):
        others += [rearrange(user, found) for user in before.users if user is not step and user.target in PICKS]
        if any(user is not step and user.target not in PICKS for user in before.users):
            return None
        found, before = rearrange(step, found), step
    if len(before.users) != 1:
        return None
    if found.dim() < 3:
        return None
    rows = found.movedim(width, -1).flatten(0, -3)  # (heads, places, D)
    if (rows != rows[:, :1]).any() or any(torch.isin(other, found).any() for other in others):
        return None
    return Heads(layer, rows[:, 0])


def _columns(node: fx.Node) -> tuple[fx.Node, Tensor] | None:
    """The linear that reads a value (heads, places, D), and its inputs as (heads, D)."""
    shape = shape_of(node)
    heads, width = torch.Size(shape[:-2]).numel(), shape[-1]
    found: Any = torch.arange(heads * width).reshape(*shape[:-2], 1, width).expand(shape)
    while len(node.users) == 1:
        (node,) = node.users
        if node.target is aten.linear.default and fits(node):
            return node, _inverse(found.flatten(0, -2), heads, width)
        if node.target not in LAYOUT - PARTS - PICKS:
            return None
        found = rearrange(node, found)
    return None


def _inverse(found: Tensor, heads: int, width: int) -> Tensor:
    """From the head and place in it of each column, over all places, to the columns of each: (heads, D)."""
    columns = torch.full((heads * width,), -1)
    columns[found] = torch.arange(found.shape[1]).expand(found.shape)
    return columns.reshape(heads, width)


def _is_scale(node: fx.Node) -> bool:
    return node.target in SCALES and not isinstance(node.args[1], fx.Node)


def rearrange(node: fx.Node, value: Any) -> Any:
    """What a node of `LAYOUT`, or one that scales, does to a value of other contents."""
    return value if _is_scale(node) else node.target(value, *node.args[1:], **node.kwargs)  # type: ignore[operator]


def whole_heads(heads: Heads, units: Iterator[Any]) -> bool:
    """Whether some unit takes all rows of a head."""
    return any(bool(torch.isin(rows, torch.as_tensor(unit)).all()) for unit in units for rows in heads.rows)
