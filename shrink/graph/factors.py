"""Let weights absorb constant factors, each of which costs a pass over a feature map: W (c x) = (c W) x.

Forward, into the next weights: a hard-swish is x * relu6(x + 3) times 1/6. Back, into the weights before: a layer scale
(Touvron et al., "Going deeper with Image Transformers", ICCV 2021) has a factor for each channel of what a convolution
or linear gives, an attention has one for the rows of its queries. Rows of weights are rounded each with a scale of its
own, so that int8 loses nothing by it.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from shrink.graph.edit import call, constant, is_constant, replace, scalar_like, scale_outputs, set_constant
from shrink.graph.shapes import size_of
from shrink.graph.views import CHANNELS, follow, has_weights, is_view

aten = torch.ops.aten
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
POSITIVE = {aten.relu.default, aten.leaky_relu.default, aten.max_pool2d.default}
"""Ops f of one activation with f(c x) = c f(x) for c > 0."""
PRODUCTS = {aten.matmul.default, aten.bmm.default}


def fold_factors(graph_module: fx.GraphModule) -> int:
    """Remove products with a one-element constant whose every reader can absorb it; returns how many."""
    folded = 0
    for node in list(graph_module.graph.nodes):
        factor = _factor(graph_module, node)
        if factor is None:
            continue
        source, value = factor
        positive = bool(value > 0)
        if node.users and all(_absorbs(user, node, positive) for user in node.users):
            for user in list(node.users):
                _absorb(graph_module, user, node, value)
            replace(node, source)
            folded += 1
    return folded


def _factor(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, Tensor] | None:
    """(x, c) if the node is x * c with a constant c of one element."""
    found = with_constant(graph_module, node, aten.mul.Tensor)
    return None if found is None or found[1].numel() != 1 else (found[0], found[1].reshape(()))


def with_constant(graph_module: fx.GraphModule, node: fx.Node, op: object) -> tuple[fx.Node, Tensor] | None:
    """(x, c) if the node is x * c, or another such op, with a constant c that repeats nothing of x."""
    if node.target is not op or node.kwargs:
        return None
    for value, source in (node.args[:2], reversed(node.args[:2])):
        if is_constant(value) and isinstance(source, fx.Node) and not is_constant(source):
            return (source, constant(graph_module, value)) if source.meta["shape"] == node.meta["shape"] else None
    return None


def _absorbs(user: fx.Node, source: fx.Node, positive: bool) -> bool:
    if user.target in CHANNELS:
        return user.args[0] is source and is_constant(user.args[1])
    passes_on = (
        user.target in LINEAR
        or (positive and user.target in POSITIVE)
        or (user.target is aten.mul.Tensor and user.args[0] is not user.args[1])
    )
    return passes_on and bool(user.users) and all(_absorbs(reader, user, positive) for reader in user.users)


def _absorb(graph_module: fx.GraphModule, user: fx.Node, source: fx.Node, value: Tensor) -> None:
    if user.target in CHANNELS:
        set_constant(graph_module, user, 1, constant(graph_module, user.args[1]) * value)
    else:
        for reader in list(user.users):
            _absorb(graph_module, reader, user, value)


def move_to_gates(graph_module: fx.GraphModule) -> int:
    """Let the smaller of two activations take a constant factor of their product, as a gate does; returns how many.

    x g c, where g has a number per channel, is x (g c): a pass over a feature map less. Networks without norms scale
    what a residual adds so (Brock et al. 2021).
    """
    return sum([_move_to_gate(graph_module, node) for node in list(graph_module.graph.nodes)])


def _move_to_gate(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    found = _factor(graph_module, node)
    if found is None or found[0].target is not aten.mul.Tensor or len(found[0].users) != 1:
        return False
    product, value = found
    parts = product.all_input_nodes
    gate = min(parts, key=size_of)
    if len(parts) != 2 or any(map(is_constant, parts)) or size_of(gate) == size_of(product):
        return False
    number = scalar_like(graph_module, product, f"{node.name}_factor", float(value), gate)
    scaled = call(product, aten.mul.Tensor, gate, number)
    product.replace_input_with(gate, scaled)
    replace(node, product)
    return True


def fold_scales(graph_module: fx.GraphModule) -> int:
    """Remove products with a constant that has a number per channel of the weights before, or one; returns how many."""
    nodes = list(graph_module.graph.nodes)
    return sum([_fold_scale(graph_module, node) or _fold_before_product(graph_module, node) for node in nodes])


def _fold_before_product(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the weights before one side of a matrix product took in a number times it: c (Q K) = (c Q) K."""
    found = _factor(graph_module, node)
    if found is None or found[0].target not in PRODUCTS or len(found[0].users) != 1:
        return False
    product, value = found
    for place, side in enumerate(product.args):
        if not isinstance(side, fx.Node) or is_constant(side):
            continue
        number = scalar_like(graph_module, product, f"{node.name}_before", float(value), side)
        scaled = call(product, aten.mul.Tensor, side, number)
        product.update_arg(place, scaled)
        if _fold_scale(graph_module, scaled):
            replace(node, product)
            return True
        product.update_arg(place, side)
        product.graph.erase_node(scaled)
    return False


def _fold_scale(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether weights took in a product: all that reads the channels that it scales, reads them scaled."""
    found = with_constant(graph_module, node, aten.mul.Tensor)
    if found is None:
        return False
    product_of, factor = found
    source, reader = product_of, node
    if source.target in POSITIVE and len(source.users) == 1 and bool((factor > 0).all()):
        source, reader = source.all_input_nodes[0], source
    weighted = _weights_of(source)
    if weighted is None:
        return False
    followed = follow(weighted, CHANNELS[weighted.target])
    labels = followed.labels[source]
    assert isinstance(labels, Tensor)
    if any(size not in (1, there) for size, there in zip(factor.shape[::-1], labels.shape[::-1], strict=False)):
        return False  # numbers for the places of a pool, which are fewer than those before it
    factor = factor.expand_as(labels)
    factors = torch.ones(followed.count)
    factors[labels] = factor
    scaled = followed.read_by(reader)
    others = [followed.read_by(other) for other in followed.readers if other is not reader]
    if not torch.equal(factors[labels], factor) or any((scaled & other).any() for other in others):
        return False
    scale_outputs(graph_module, weighted, factors)
    replace(node, product_of)
    return True


def _weights_of(node: fx.Node) -> fx.Node | None:
    """The convolution or linear of which a value is only a view."""
    while is_view(node) and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return node if has_weights(node) else None


def per_channel(graph_module: fx.GraphModule, node: fx.Node, op: object) -> tuple[fx.Node, Tensor, int] | None:
    """(x, c, dim) if the node is x * c, or another such op, with a constant c that differs along one dimension of x."""
    found = with_constant(graph_module, node, op)
    if found is None:
        return None
    source, number = found
    first = len(source.meta["shape"]) - number.dim()
    along = [dim for dim, size in enumerate(number.shape, start=first) if size > 1]
    return (source, number.reshape(-1), along[0]) if len(along) == 1 else None
