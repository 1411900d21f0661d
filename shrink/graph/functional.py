"""From an exported program to functional ATen ops with the shapes written out.

PyTorch's own pass for that, `run_decompositions`, traces the whole model a second time, and takes longer than the
export. What most models need of it is done here node by node; for all others, the pass runs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from shrink.graph.edit import call, replace

aten = torch.ops.aten


def functional(program: ExportedProgram) -> fx.GraphModule:
    """The program as a module whose graph writes to nothing: what reads a changed value reads the changing op."""
    graph_module = _module(program)
    drop_inert(graph_module.graph)
    if can_spell(graph_module.graph):
        spell(graph_module.graph)
        return graph_module
    table = torch.export.default_decompositions()
    return _module(program.run_decompositions({op: table[op] for op in APART}))


def _module(program: ExportedProgram) -> fx.GraphModule:
    unlifted = program.module(check_guards=False)
    return fx.GraphModule(unlifted, unlifted.graph).eval()  # an ordinary module: it may be copied and called


APART = {aten.einsum.default}
"""Ops that PyTorch writes as smaller ones: litert-torch 0.10 gets the axes of an einsum wrong."""


def drop_inert(graph: fx.Graph) -> None:
    """Drop dropouts in inference: they return the very tensor that they are given, of which the trace makes a copy."""
    for node in list(graph.nodes):
        if node.target in (aten.dropout.default, aten.dropout_.default) and not node.args[2]:
            replace(node, node.args[0])


def can_spell(graph: fx.Graph) -> bool:
    """Whether `spell` gives what PyTorch's pass would give: it knows every op, and every write is seen by its name."""
    return all(_is_known(node) for node in graph.nodes if node.op == "call_function") and _writes_are_plain(graph)


def spell(graph: fx.Graph) -> None:
    """Write the ops in place as functional ones, and views by their shapes, in the given graph."""
    for node in list(graph.nodes):
        if _writes(node):
            written: Any = node.args[0]
            written.replace_all_uses_with(node, delete_user_cb=node.__lt__)  # by those that come later
            node.target = _without_writing(node)
        spelled = SPELLINGS.get(node.target)
        if spelled is not None:
            new = spelled(node, *node.args, **node.kwargs)
            new.meta.update(node.meta)
            replace(node, new)


def _is_known(node: fx.Node) -> bool:
    """Whether PyTorch's pass would leave `node` as it is, or SPELLINGS write it in the same way."""
    op: Any = node.target
    if op is operator.getitem:
        return True
    if not isinstance(op, torch._ops.OpOverload) or op in APART:
        return False
    if _writes(node):
        op = _without_writing(node)
        return op is not None and not _is_composite(op)
    if op is aten.batch_norm.default:
        return node.args[5] is False  # else by the statistics of the batch
    views = any(argument.alias_info is not None for argument in op._schema.arguments)
    taken_apart = _is_composite(op) and (views or torch.Tag.maybe_aliasing_or_mutating in op.tags)
    return op in SPELLINGS or not taken_apart


def _is_composite(op: Any) -> bool:
    return bool(op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd))


def _writes(node: fx.Node) -> bool:
    return bool(isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable)


def _without_writing(node: fx.Node) -> Any:
    """The op that only returns what `node` also writes over its first argument; None if it would be of another type.

    Also None where that is no single tensor, as of `_foreach_add_`.
    """
    op: Any = node.target
    if not isinstance(node.meta.get("val"), Tensor) or not isinstance(node.args[0], fx.Node):
        return None
    name = op._schema.name.removeprefix("aten::")
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    same_type = all(value.dtype == node.meta["val"].dtype for n in node.all_input_nodes for value in _values(n))
    return getattr(packet, op._overloadname, None) if same_type else None


def _writes_are_plain(graph: fx.Graph) -> bool:
    """Whether what is written in place is read later only under the written value's own name, not through a view.

    Which values share memory is known from the fake tensors of the trace.
    """
    sharing: dict[int, list[fx.Node]] = {}
    for node in graph.nodes:
        for memory in {_memory(value) for value in _values(node)}:
            sharing.setdefault(memory, []).append(node)
    result: dict[fx.Node, fx.Node] = {}  # what is read instead of a value that was written to
    for node in filter(_writes, graph.nodes):
        written: Any = node.args[0]
        for other in sharing[_memory(written.meta["val"])]:
            name = other
            while name in result:
                name = result[name]
            if name is not written and other < node and any(node < user for user in other.users):
                return False
        result[written] = node
    return True


def _values(node: fx.Node) -> list[Tensor]:
    value = node.meta.get("val")
    return [v for v in (value if isinstance(value, (tuple, list)) else [value]) if isinstance(v, Tensor)]


def _memory(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)


def _reshaped(node: fx.Node, x: fx.Node, *_: Any, **__: Any) -> fx.Node:
    return call(node, aten.reshape.default, x, [*node.meta["val"].shape])


def _expanded(node: fx.Node, x: fx.Node, *_: Any) -> fx.Node:
    return call(node, aten.expand.default, x, [*node.meta["val"].shape])


def _split(node: fx.Node, x: fx.Node, chunks: int, dim: int = 0) -> fx.Node:
    return call(node, aten.split.Tensor, x, -(-x.meta["val"].shape[dim] // chunks), dim)


def _cast(node: fx.Node, x: fx.Node, *_: Any, **__: Any) -> fx.Node:
    return call(node, aten._to_copy.default, x, dtype=node.meta["val"].dtype)


def _copied(node: fx.Node, x: fx.Node, *_: Any, **__: Any) -> fx.Node:
    return call(node, aten.clone.default, x)


SPELLINGS: dict[object, Callable[..., fx.Node]] = {
    aten.flatten.using_ints: _reshaped,
    aten.unflatten.int: _reshaped,
    aten.reshape.default: _reshaped,
    aten.reshape_as.default: _reshaped,
    aten.view.default: _reshaped,
    aten.view_as.default: _reshaped,
    aten.expand_as.default: _expanded,
    aten.chunk.default: _split,
    aten.contiguous.default: _copied,
    aten.to.dtype: _cast,
    aten.to.dtype_layout: _cast,
    aten.to.device: _cast,
}
"""Ops that the pass would write by others; these answer the same for fixed shapes, in inference."""
