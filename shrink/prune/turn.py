"""Turn the basis of every attention head so that few of its coordinates carry most: exact, before anything is removed.

Queries and keys matter only by their products, values only by what the next linear makes of them. Any regular
matrix may be put between: q' = T q, k' = inv(T)' k. With second moments C of the calibration images and
U S V' = sqrt(Cq) sqrt(Ck), q' = sqrt(S) U' inv(sqrt(Cq)) q and k' = sqrt(S) V' inv(sqrt(Ck)) k are balanced, and
coordinate i brings S_i^2 of the mean square of the products: the best basis to cut (Eckart & Young, 1936).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from shrink.graph.edit import constant
from shrink.prune.moments import Moments, flat_weight
from shrink.prune.products import Heads, Product, Values, products, values
from shrink.prune.remove import put

DAMPING = 1e-6  # of the mean diagonal: directions that no image shows stay regular


def turn(graph_module: fx.GraphModule, gathered: Mapping[fx.Node, Moments]) -> int:
    """Change the weights of queries, keys, values and their readers in place; answers stay the same to rounding.

    Args:
        graph_module: the float graph; constants that others share are replaced, not written to.
        gathered: second moments of what its layers read; those of the readers of values are turned, too.

    Returns:
        How many attentions were turned.
    """
    found = 0
    for product in products(graph_module):
        if product.left.layer in gathered and product.right.layer in gathered and not _shared(product.left.layer):
            _turn_product(graph_module, product, gathered)
            found += 1
    for value in values(graph_module):
        if value.writer.layer in gathered and value.reader in gathered and not _shared(value.reader):
            _turn_values(graph_module, value, gathered[value.reader])
    return found


def _shared(layer: fx.Node) -> bool:
    """Whether another layer has the same weight."""
    target = layer.args[1].target  # type: ignore[union-attr]
    readers = [
        user for node in layer.graph.nodes if node.op == "get_attr" and node.target == target for user in node.users
    ]
    return len(readers) > 1


def _turn_product(graph_module: fx.GraphModule, product: Product, gathered: Mapping[fx.Node, Moments]) -> None:
    turns = []
    for head in range(len(product.left.rows)):
        left, right = map(_roots, product.covariances(graph_module, gathered, head))
        u, s, _ = torch.linalg.svd(left[0] @ right[0])
        turns.append(s.clamp_min(1e-9 * s[0]).sqrt()[:, None] * (u.T @ left[1]))
    _apply(graph_module, product.left, turns)
    _apply(graph_module, product.right, [torch.linalg.inv(left).T for left in turns])


def _turn_values(graph_module: fx.GraphModule, value: Values, read: Moments) -> None:
    second = read.second.double()
    centred = second - torch.outer(second[:, -1], second[:, -1])
    weight = constant(graph_module, value.reader.args[1]).double()
    change = torch.eye(len(second), dtype=torch.float64)
    turns = []
    for columns in value.columns:
        root, inverse = _roots(centred[columns][:, columns])
        _, s, vt = torch.linalg.svd(weight[:, columns] @ root, full_matrices=True)
        s = torch.cat([s, s.new_zeros(len(vt) - len(s))])
        turns.append(s.clamp_min(1e-6 * s[0]).sqrt()[:, None] * (vt @ inverse))
        change[columns[:, None], columns] = turns[-1]
        weight[:, columns] = weight[:, columns] @ torch.linalg.inv(turns[-1])
    _apply(graph_module, value.writer, turns)
    put(graph_module, str(value.reader.args[1].target), weight.float())  # type: ignore[union-attr]
    read.second = (change @ second @ change.T).to(read.second.dtype)


def _apply(graph_module: fx.GraphModule, heads: Heads, turns: list[Tensor]) -> None:
    """Multiply the rows of each head, weights and biases, by its matrix."""
    flat = flat_weight(graph_module, heads.layer).double()
    for rows, matrix in zip(heads.rows, turns, strict=True):
        flat[rows] = matrix @ flat[rows]
    put(graph_module, heads.place[0], flat[:, :-1].float())
    bias = heads.layer.args[2] if len(heads.layer.args) > 2 else None
    if bias is not None:
        put(graph_module, str(bias.target), flat[:, -1].float())  # type: ignore[union-attr]


def _roots(second: Tensor) -> tuple[Tensor, Tensor]:
    """Square root of a covariance and the inverse of that, both symmetric."""
    values, vectors = torch.linalg.eigh(second)
    values = values.clamp_min(0) + DAMPING * values.mean().clamp_min(1e-12)
    return vectors * values.sqrt() @ vectors.T, vectors * values.rsqrt() @ vectors.T
