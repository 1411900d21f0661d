"""What every captured graph goes through: no-ops out, constants folded, batch norms folded."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx

from shrink.graph.edit import add_constant, constant, is_constant, replace

aten = torch.ops.aten

NO_OPS = {aten.clone.default, aten.alias.default, aten.detach.default, aten.dropout.default, aten.lift_fresh_copy.default}
"""Ops that return their first argument unchanged in a functional inference graph."""


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

RESHAPES = {aten.view.default, aten._unsafe_view.default, aten._reshape_copy.default}
"""Ops that are a reshape once nothing depends on strides."""


def clean(graph_module: fx.GraphModule) -> None:
    """Remove no-ops, fold constant sub-graphs and batch norms, in place; the function stays the same."""
    drop_no_ops(graph_module)
    unify_reshapes(graph_module)
    fold_constants(graph_module)
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
    """Connect the users of ops that only pass their input on to that input."""
    for node in list(graph_module.graph.nodes):
        if node.target in NO_OPS:
            replace(node, node.args[0])


def unify_reshapes(graph_module: fx.GraphModule) -> None:
    """Write every view as a reshape: a view asks for strides that a dropped copy had made."""
    for node in graph_module.graph.nodes:
        if node.target in RESHAPES:
            node.target = aten.reshape.default


def fold_constants(graph_module: fx.GraphModule) -> None:
    """Compute once what does not depend on the input, such as Swin's attention masks."""
    known: dict[fx.Node, object] = {}
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in CREATORS:
            example = node.args[0].meta["val"]
            known[node] = node.target(torch.zeros(tuple(example.shape), dtype=example.dtype), *node.args[1:], **node.kwargs)
        elif all(n in known or is_constant(n) for n in node.all_input_nodes):
            with torch.no_grad():
                args, kwargs = fx.map_arg(
                    (node.args, node.kwargs), lambda n: known[n] if n in known else constant(graph_module, n)
                )
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
        if node.target is not aten._native_batch_norm_legit_no_training.default:
            continue
        source, gamma, beta, mean, var, _, eps = node.args
        read = [None if n is None else constant(graph_module, n) for n in (gamma, beta, mean, var)]
        scale = (torch.ones_like(read[2]) if read[0] is None else read[0]) / torch.sqrt(read[3] + eps)
        shift = (0.0 if read[1] is None else read[1]) - scale * read[2]
        first = next(iter(node.users))  # getitem(0): the normalized tensor; the others are unused in inference
        assert first.target is operator.getitem and first.args[1] == 0
        if _foldable(source):
            _fold_into(graph_module, source, scale, shift)
            replace(first, source)
        else:
            replace(first, _affine(graph_module, node, source, scale, shift))
        tidy_one(graph_module, node)


def tidy_one(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """Erase `node` and its dead getitems."""
    for user in list(node.users):
        graph_module.graph.erase_node(user)
    graph_module.graph.erase_node(node)


def _foldable(source: fx.Node) -> bool:
    return (
        source.target in (aten.conv2d.default, aten.linear.default, aten.convolution.default)
        and len(source.users) == 1
        and is_constant(source.args[1])
        and not (source.target is aten.convolution.default and source.args[6])  # transposed: weight axis differs
    )


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
    rank = len(node.meta["val"][0].shape)
    shape = (1, -1, *[1] * (rank - 2))
    graph = graph_module.graph
    with graph.inserting_before(node):
        factor = add_constant(graph_module, f"{node.name}_scale", scale.reshape(shape))
        offset = add_constant(graph_module, f"{node.name}_shift", shift.reshape(shape))
        product = graph.call_function(aten.mul.Tensor, (source, factor))
        total = graph.call_function(aten.add.Tensor, (product, offset))
    product.meta.update(layer=node.meta.get("layer", ""))
    total.meta.update(layer=node.meta.get("layer", ""))
    return total
