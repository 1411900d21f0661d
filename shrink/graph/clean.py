"""What every captured graph goes through: no-ops out, constants folded, batch norms folded."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.edit import add_constant, call, constant, is_constant, replace
from shrink.graph.spelling import rename, unify

aten = torch.ops.aten

NO_OPS = {
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
}
"""Ops that return their first argument unchanged in a functional inference graph."""

CASTS = {aten._to_copy.default, aten.type_as.default}
"""Ops that do so if the dtype stays the same."""

NEUTRAL = {aten.add.Tensor: 0, aten.sub.Tensor: 0, aten.mul.Tensor: 1, aten.div.Tensor: 1}
"""Ops that do so if the second is this number, which an int8 file would store with a scale that no runtime takes."""

CHECKS = {aten._assert_tensor_metadata.default, aten._assert_scalar.default}
"""Ops that compute nothing: what they check was fixed with the shapes."""


CREATORS = {
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
}
"""Ops that read only the shape and dtype of their input, both of which are fixed here."""


def clean(graph_module: fx.GraphModule) -> None:
    """Remove no-ops, fold constant sub-graphs and batch norms, in place; the function stays the same."""
    drop_no_ops(graph_module)
    rename(graph_module)
    fold_constants(graph_module)
    unify(graph_module)
    fold_batch_norms(graph_module)
    tidy(graph_module)


def tidy(graph_module: fx.GraphModule) -> None:
    """Drop dead nodes and unused constants, check the graph and regenerate its code."""
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    used = {node.target for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph_module.named_parameters(), *graph_module.named_buffers()]:
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(graph_module.get_submodule(owner), leaf)
    graph_module.graph.lint()
    graph_module.recompile()


def drop_no_ops(graph_module: fx.GraphModule) -> None:
    """Connect the users of ops that only pass their input on to that input, and drop effects on anything else.

    A model that writes to its input or to a buffer reads the new value from the graph; the write itself
    would change the caller's image, or the user's model, whose buffers the graph shares.
    """
    for node in list(graph_module.graph.nodes):
        inert = node.target in CASTS or (node.target in NEUTRAL and node.args[1] == NEUTRAL[node.target])
        if node.target in NO_OPS or (inert and _dtype(node) == _dtype(node.args[0])):
            replace(node, node.args[0])
        elif node.target is aten.copy_.default:
            replace(node, node.args[1])
        elif node.target in CHECKS:
            graph_module.graph.erase_node(node)


def _dtype(node: fx.Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def fold_constants(graph_module: fx.GraphModule) -> None:
    """Compute once what does not depend on the input, such as Swin's attention masks."""
    known: dict[fx.Node, Any] = {}

    def read(node: fx.Node) -> Any:
        return known[node] if node in known else constant(graph_module, node)

    for node in list(graph_module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in CREATORS:
            example = node.args[0].meta["val"]
            zeros = torch.zeros(tuple(example.shape), dtype=example.dtype)
            known[node] = node.target(zeros, *node.args[1:], **node.kwargs)
        elif all(n in known or is_constant(n) for n in node.all_input_nodes):
            with torch.no_grad():
                args, kwargs = fx.map_arg((node.args, node.kwargs), read)
                known[node] = node.target(*args, **kwargs)
    for node, value in known.items():
        wanted = [user for user in node.users if user not in known]
        if wanted and isinstance(value, Tensor):
            with graph_module.graph.inserting_before(node):
                folded = add_constant(graph_module, f"{node.name}_folded", value.contiguous().clone())
            folded.meta.update(layer=node.meta.get("layer", ""))
            for user in wanted:
                user.replace_input_with(node, folded)
    tidy(graph_module)


def fold_batch_norms(graph_module: fx.GraphModule) -> None:
    """Fold each batch norm into the convolution or linear before it, else write it as multiply and add.

    Jacob et al., "Quantization and Training of Neural Networks", 2018, section 3.2: with
    g = gamma / sqrt(var + eps), w' = g w and b' = beta + g (b - mean).
    """
    for node in list(graph_module.graph.nodes):
        if node.target is aten.batch_norm.default:
            source, gamma, beta, mean, var, _, _, eps, _ = node.args
            normalized = node
        elif node.target is aten._native_batch_norm_legit_no_training.default:
            source, gamma, beta, mean, var, _, eps = node.args
            normalized = next(iter(node.users))  # the others are statistics, unused in inference
            assert normalized.target is operator.getitem and normalized.args[1] == 0
        else:
            continue
        scale = 1 / torch.sqrt(constant(graph_module, var) + eps)
        if gamma is not None:
            scale = scale * constant(graph_module, gamma)
        shift = -scale * constant(graph_module, mean)
        if beta is not None:
            shift = shift + constant(graph_module, beta)
        weighted = _weighted(source)
        if weighted is not None:
            _fold_into(graph_module, weighted, scale, shift)
            normalized.replace_all_uses_with(source)
        else:
            normalized.replace_all_uses_with(_affine(graph_module, node, source, scale, shift))
        for dead in (*node.users, node):
            graph_module.graph.erase_node(dead)


def _weighted(source: Any) -> fx.Node | None:
    """The convolution or linear that gives `source` and nothing else, one weight row per normalized channel."""
    rank = len(source.meta["val"].shape)
    while source.target is aten.reshape.default and rank == 2 and len(source.users) == 1 and _keeps_channels(source):
        source = source.args[0]
    foldable = (
        (source.target is aten.conv2d.default or (source.target is aten.linear.default and rank == 2))
        and len(source.users) == 1
        and all(n is None or is_constant(n) for n in source.args[1:3])
    )
    return source if foldable else None


def _keeps_channels(reshape: Any) -> bool:
    """Whether only the dimensions before the last are joined or split."""
    last: bool = reshape.meta["val"].shape[-1] == reshape.args[0].meta["val"].shape[-1]
    return last


def _fold_into(graph_module: fx.GraphModule, source: fx.Node, scale: Tensor, shift: Tensor) -> None:
    weight = constant(graph_module, source.args[1])
    bias = constant(graph_module, source.args[2]) if len(source.args) > 2 and source.args[2] is not None else 0.0
    with graph_module.graph.inserting_before(source):
        new_weight = add_constant(
            graph_module, f"{source.name}_weight", weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        )
        new_bias = add_constant(graph_module, f"{source.name}_bias", scale * bias + shift)
    args = [*source.args, None][: max(3, len(source.args))]
    args[1], args[2] = new_weight, new_bias
    source.args = tuple(args)


def _affine(graph_module: fx.GraphModule, node: fx.Node, source: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    rank = len(source.meta["val"].shape)
    shape = (1, -1, *[1] * (rank - 2))
    with graph_module.graph.inserting_before(node):
        factor = add_constant(graph_module, f"{node.name}_scale", scale.reshape(shape))
        offset = add_constant(graph_module, f"{node.name}_shift", shift.reshape(shape))
    return call(node, aten.add.Tensor, call(node, aten.mul.Tensor, source, factor), offset)
