"""Let weights read and write channels in another order, instead of moving a feature map: W P x = (W P) x.

A channel shuffle (Zhang et al., "ShuffleNet", CVPR 2018) is three passes over a feature map where the layout is NHWC;
the four of FastViT-T8 took 0.9 of 11.7 ms in ONNX Runtime, in int8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.channels import along
from shrink.graph.convolution import convolution
from shrink.graph.edit import constant, is_constant, set_constant
from shrink.graph.views import CHANNELS, has_weights, is_view

aten = torch.ops.aten
CHANNEL_BY_CHANNEL = frozenset(
    {
        aten.add.Tensor,
        aten.sub.Tensor,
        aten.mul.Tensor,
        aten.relu.default,
        aten.hardtanh.default,
        aten.clamp.default,
        aten.gelu.default,
        aten.silu.default,
        aten.sigmoid.default,
        aten.tanh.default,
        aten.hardsigmoid.default,
        aten.hardswish.default,
        aten.elu.default,
        aten.leaky_relu.default,
        aten.max_pool2d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
    }
)
"""Ops that compute each channel from that channel alone; depthwise convolutions do, too."""

Orders = dict[fx.Node, Tensor]
"""Value -> (C,) int64: the channel of it that each channel of what stands there afterwards is."""


def fold_orders(graph_module: fx.GraphModule) -> int:
    """Remove changes of the order of channels, up to full convolutions that read them; returns how many.

    From the last to the first, as what follows one must not have others in its way.
    """
    return sum([_fold_order(graph_module, node) for node in reversed(list(graph_module.graph.nodes))])


def _fold_order(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether all that comes after a node could do without the order that views end with there."""
    if not (is_view(node) and node.users) or any(map(is_view, node.users)):
        return False
    moves, source = _views_before(node)
    order = _order(moves, source) if moves else None
    orders = None if order is None else _reached(node, order.argsort())
    if not orders:
        return False
    for value, channels in orders.items():
        if value is not node:
            _write_in(graph_module, value, channels)
        for reader in list(value.users):
            if _is_full(reader):
                set_constant(graph_module, reader, 1, constant(graph_module, reader.args[1])[:, channels])
    node.replace_all_uses_with(source)
    for move in reversed(moves):
        if not move.users:  # or it would count among the readers of what comes before
            move.graph.erase_node(move)
    return True


def _views_before(node: fx.Node) -> tuple[list[fx.Node], fx.Node]:
    """The views that end with a node, the first one first, and what they are views of."""
    moves: list[fx.Node] = []
    while is_view(node) and node.target is not aten.cat.default and "shape" in node.all_input_nodes[0].meta:
        moves.insert(0, node)
        (node,) = node.all_input_nodes
    return moves, node


def _order(moves: list[fx.Node], source: fx.Node) -> Tensor | None:
    """(C,) int64: the channel of (1, C, H, W) that is to be found at each, if views change nothing else."""
    shape = source.meta["shape"]
    if len(shape) != 4 or moves[-1].meta["shape"] != shape or is_constant(source):
        return None
    numbers = torch.arange(torch.Size(shape).numel()).reshape(shape)
    seen: dict[fx.Node, Any] = {source: numbers}
    for move in moves:
        run: Any = move.target
        seen[move] = run(*fx.map_arg(move.args, seen.__getitem__), **move.kwargs)
    moved = seen[moves[-1]]
    order = along(moved // torch.Size(shape[2:]).numel(), 1)
    return order if order is not None and torch.equal(numbers[:, order], moved) else None


def _reached(start: fx.Node, channels: Tensor) -> Orders | None:
    """All values that change their order with one; None if something can neither take it nor give it.

    Axis 1 is that of the channels in all of them: of (1, C, H, W), and of the (1, C) that a classifier reads.
    """
    orders, todo = {start: channels}, [start]
    while todo:
        value = todo.pop()
        concerned = [user for user in value.users if not (_is_full(user) and user.args[0] is value)]
        if value is not start and not _is_full(value):
            concerned.append(value)
        for node in concerned:
            same = _together(node, orders)
            if same is None or any(n in orders and not torch.equal(orders[n], same[n]) for n in same):
                return None
            todo += same.keys() - orders.keys()
            orders |= same
    return orders


def _together(node: fx.Node, orders: Mapping[fx.Node, Tensor]) -> Orders | None:
    """The orders of what an op gives and of what it reads, from those that are known; None if it must not change."""
    values = [n for n in (node, *node.all_input_nodes) if not is_constant(n)]
    if any(len(n.meta.get("shape", ())) not in (2, 4) for n in values):
        return None
    if node.target is aten.cat.default:
        return {node: _side_by_side(node, orders)} if node.args[1:] in ((1,), (-3,)) else None
    of_one_rank = len({len(n.meta["shape"]) for n in values}) == 1
    if not (_is_flat(node) or _is_over_places(node) or (of_one_rank and _is_channel_by_channel(node))):
        return None
    channels = next(orders[n] for n in values if n in orders)
    return dict.fromkeys(values, channels) if all(n.meta["shape"][1] == len(channels) for n in values) else None


def _side_by_side(node: fx.Node, orders: Mapping[fx.Node, Tensor]) -> Tensor:
    """The order of a concatenation, whose other parts keep theirs."""
    given: Any = node.args[0]
    parts, first = [], 0
    for part in given:
        size = part.meta["shape"][1]
        parts.append(first + orders.get(part, torch.arange(size)))
        first += size
    return torch.cat(parts)


def _write_in(graph_module: fx.GraphModule, node: fx.Node, channels: Tensor) -> None:
    """Let a node give its channels in that order, by its weights, or by the constant it adds or multiplies with."""
    for index, arg in enumerate(node.args):
        if is_constant(arg):
            value = constant(graph_module, arg)
            axis = 0 if node.target in CHANNELS else value.dim() - len(node.meta["shape"]) + 1
            if axis >= 0 and value.shape[axis] > 1:
                set_constant(graph_module, node, index, value.index_select(axis, channels))


def _is_full(node: fx.Node) -> bool:
    """Whether constant weights of a node read all channels along axis 1."""
    if not (has_weights(node) and is_constant(node.args[1])):
        return False
    return len(node.meta["shape"]) == 2 if node.target is aten.linear.default else convolution(node).groups == 1


def _is_channel_by_channel(node: fx.Node) -> bool:
    if node.target is not aten.conv2d.default:
        return node.target in CHANNEL_BY_CHANNEL
    return has_weights(node) and convolution(node).is_depthwise and convolution(node).groups == node.meta["shape"][1]


def _is_over_places(node: fx.Node) -> bool:
    """Means over (2, 3), and paddings around them."""
    args: tuple[Any, ...] = node.args
    if node.target is aten.mean.dim:
        return len(args[0].meta["shape"]) == 4 and {dim % 4 for dim in args[1]} <= {2, 3}
    return node.target is aten.constant_pad_nd.default and len(args[1]) <= 4 == len(args[0].meta["shape"])


def _is_flat(node: fx.Node) -> bool:
    """Whether a view gives axes of one place to a number per channel, or takes them."""
    shapes = [n.meta["shape"] for n in (node, *node.all_input_nodes)]
    return is_view(node) and all(shape[:2] == (1, torch.Size(shape).numel()) for shape in shapes)
