"""A graph as a file: JSON that names ATen ops from a list, and its tensors as safetensors. No code, no pickle.

A file from nobody knows where may be wrong or hostile: every op, argument, name and shape is checked before
anything is run, and all that is wrong is a `ModelError`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, fx

from shrink.errors import ModelError
from shrink.graph.edit import constant
from shrink.graph.shapes import annotate_shapes, input_shape

FORMAT = 1
MOST_NODES = 100_000
MOST_NUMBERS = 2**29  # in one tensor
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}")

_NAMES = """
add.Tensor add.Scalar sub.Tensor sub.Scalar mul.Tensor mul.Scalar div.Tensor div.Scalar pow.Tensor_Scalar
neg.default abs.default exp.default sqrt.default rsqrt.default square.default reciprocal.default
maximum.default minimum.default relu.default hardtanh.default clamp.default clamp_min.default gelu.default
silu.default sigmoid.default tanh.default hardsigmoid.default hardswish.default elu.default leaky_relu.default
mish.default softplus.default prelu.default adaptive_avg_pool2d.default avg_pool2d.default max_pool2d.default
adaptive_max_pool2d.default upsample_bilinear2d.vec upsample_nearest2d.vec upsample_bicubic2d.vec
upsample_bilinear2d.default upsample_nearest2d.default mean.dim mean.default amax.default amin.default
var.correction sum.dim_IntList linalg_vector_norm.default softmax.int _softmax.default log_softmax.int
layer_norm.default group_norm.default instance_norm.default permute.default transpose.int reshape.default
flatten.using_ints unflatten.int squeeze.dim squeeze.dims squeeze.default unsqueeze.default expand.default
slice.Tensor select.int split.Tensor split_with_sizes.default chunk.default unbind.int cat.default
stack.default constant_pad_nd.default roll.default flip.default conv1d.default conv2d.default
conv_transpose2d.input linear.default matmul.default bmm.default scaled_dot_product_attention.default
where.self masked_fill.Scalar index.Tensor pixel_shuffle.default pixel_unshuffle.default im2col.default
_to_copy.default clone.default eq.Scalar ne.Scalar logical_not.default upsample_bilinear2d_aa.vec pad.default
conv2d.padding zeros_like.default full_like.default native_group_norm.default rsub.Scalar repeat.default
clamp_max.default log.default erf.default sin.default cos.default argmax.default glu.default
"""

OPS = frozenset(_NAMES.split())
"""ATen overloads that compute one tensor, or several, from others, and touch nothing else."""


class NodeRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node."""

    name: str
    op: str  # "image", "constant", "output", "item" or an overload
    args: Any = ()
    kwargs: dict[str, Any] = {}
    layer: str = ""


class StoredGraph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole graph."""

    format: int
    input_shape: tuple[int, int, int, int]
    nodes: tuple[NodeRow, ...]


def dump(graph_module: fx.GraphModule) -> tuple[bytes, dict[str, Tensor]]:
    """A captured graph as JSON and tensors.

    Raises:
        ModelError: an op that the format does not have.
    """
    tensors: dict[str, Tensor] = {}
    rows = []
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            tensors[str(node.target)] = constant(graph_module, node).contiguous()
        rows.append(
            NodeRow(
                name=node.name,
                op=_op_name(node),
                args=[str(node.target)]
                if node.op == "get_attr"
                else _plain(node.args if node.op != "placeholder" else ()),
                kwargs=_plain(dict(node.kwargs)),
                layer=node.meta.get("layer", ""),
            )
        )
    stored = StoredGraph(FORMAT, input_shape(graph_module), tuple(rows))  # type: ignore[arg-type]
    shared: dict[int, str] = {}
    for name, tensor in tensors.items():  # safetensors refuses two names for the same memory
        tensors[name] = tensor.clone() if tensor.data_ptr() in shared else tensor
        shared[tensor.data_ptr()] = name
    return msgspec.json.format(msgspec.json.encode(stored), indent=1), tensors


def load(data: bytes, tensors: Mapping[str, Tensor]) -> fx.GraphModule:
    """Build the graph again and run it once on zeros.

    Raises:
        ModelError: the data is damaged, hostile, or of another format.
    """
    try:
        stored = msgspec.json.decode(data, type=StoredGraph)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _wrong(str(error)) from error
    if stored.format != FORMAT:
        raise _wrong(f"it has format {stored.format}, and this version reads {FORMAT}")
    if not 0 < len(stored.nodes) <= MOST_NODES or not all(0 < size <= 16384 for size in stored.input_shape):
        raise _wrong("it has no nodes, or sizes that no image has")
    graph, holder = fx.Graph(), torch.nn.Module()
    known: dict[str, fx.Node] = {}
    for row in stored.nodes:
        if row.name in known or not NAME.fullmatch(row.name):
            raise _wrong(f"the name {row.name!r} is there twice, or is none")
        known[row.name] = node = _build(graph, holder, row, known, tensors)
        node.meta["layer"] = row.layer
    return _checked(graph, holder, stored, len(known))


def _build(
    graph: fx.Graph, holder: torch.nn.Module, row: NodeRow, known: Mapping[str, fx.Node], tensors: Mapping[str, Tensor]
) -> fx.Node:
    """One node, under its name."""
    if row.op == "image":
        return graph.placeholder(_free(row.name))
    if row.op == "constant":
        return _constant(graph, holder, row, tensors)
    args, kwargs = _read(row.args, known, 0), _read(row.kwargs, known, 0)
    if not isinstance(args, tuple) or not isinstance(kwargs, dict):
        raise _wrong(f"the arguments of {row.name!r} are no list")
    if row.op == "output":
        if len(args) != 1 or not isinstance(args[0], fx.Node):
            raise _wrong("its output is not one tensor")
        output: fx.Node = graph.output(args[0])
        return output
    node: fx.Node = graph.create_node("call_function", _target(row.op), args, kwargs, name=_free(row.name))
    return node


def _checked(graph: fx.Graph, holder: torch.nn.Module, stored: StoredGraph, nodes: int) -> fx.GraphModule:
    kinds = [node.op for node in graph.nodes]
    if kinds.count("placeholder") != 1 or kinds.count("output") != 1 or kinds[-1] != "output" or len(kinds) != nodes:
        raise _wrong("it has not one image and one output")
    graph_module = fx.GraphModule(holder, graph).eval()
    try:
        _WithoutMemory(graph_module).run(torch.zeros(stored.input_shape, device="meta"))
        annotate_shapes(graph_module, torch.zeros(stored.input_shape))
    except ModelError:
        raise
    except Exception as error:  # an op that is given what it does not take raises nearly anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _wrong(f"it does not run: {reason[0][:200]}") from error
    return graph_module


class _WithoutMemory(fx.Interpreter):
    """Computes shapes only, so that a few bytes of file cannot ask for all the memory there is."""

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.op == "get_attr" and isinstance(value, Tensor):
            value = value.to("meta")
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, Tensor) and part.numel() > MOST_NUMBERS:
                raise _wrong(f"{n.name!r} has {part.numel():,} numbers")
        return value


def _constant(graph: fx.Graph, holder: torch.nn.Module, row: NodeRow, tensors: Mapping[str, Tensor]) -> fx.Node:
    target = row.args[0] if isinstance(row.args, list) and len(row.args) == 1 else None
    if not isinstance(target, str) or target not in tensors:
        raise _wrong(f"the tensor of {row.name!r} is missing")
    leaf = "c_" + re.sub(r"\W", "_", target)
    value = tensors[target]
    if hasattr(holder, leaf) and getattr(holder, leaf).data_ptr() != value.data_ptr():
        raise _wrong(f"two tensors are called {leaf!r}")
    if value.numel() > MOST_NUMBERS or value.dtype not in _DTYPES.values():
        raise _wrong(f"the tensor of {row.name!r} is a {value.dtype} of {value.numel()} numbers")
    if not hasattr(holder, leaf):
        if value.is_floating_point():
            holder.register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))
        else:
            holder.register_buffer(leaf, value)
    node: fx.Node = graph.create_node("get_attr", leaf, name=_free(row.name))
    return node


def _free(name: str) -> str:
    return name.replace(".", "_")


def _op_name(node: fx.Node) -> str:
    words = {"placeholder": "image", "get_attr": "constant", "output": "output"}
    if node.op in words:
        return words[node.op]
    if node.target is operator.getitem:
        return "item"
    name = str(node.target).removeprefix("aten.")
    if name not in OPS:
        where = f" in layer {node.meta.get('layer')!r}" if node.meta.get("layer") else ""
        raise ModelError(
            f"the model has the op {name}{where}",
            "the file format of pruned models does not know it",
            "report the model; until then, prune it within `shrink export --prune`",
        )
    return name


def _target(op: str) -> Any:
    if op == "item":
        return operator.getitem
    if op not in OPS:
        raise _wrong(f"it names the op {op[:60]!r}, which is not one of a captured model")
    packet, _, overload = op.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.int64, torch.int32, torch.bool)}


def _plain(value: Any) -> Any:
    """Arguments as JSON: nodes as {"node": name}, dtypes as {"dtype": name}, numbers, text, lists."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (torch.device, torch.layout, torch.memory_format)):
        return None
    raise ModelError(f"an argument is a {type(value).__name__}", "the file format cannot say it", "report the model")


def _read(value: Any, known: Mapping[str, fx.Node], depth: int) -> Any:
    if depth > 4:
        raise _wrong("its arguments are nested too deeply")
    if isinstance(value, list):
        return tuple(_read(item, known, depth + 1) for item in value)
    if isinstance(value, dict) and depth:
        return _named(value, known)
    if isinstance(value, dict):
        return {key: _read(item, known, depth + 1) for key, item in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # a slice "to the end" goes to the largest of them
        raise _wrong("it holds a number that no shape has")
    return value


def _named(value: Mapping[str, Any], known: Mapping[str, fx.Node]) -> Any:
    kind, name = next(iter(value.items())) if len(value) == 1 else ("", "")
    if kind == "node" and name in known:
        return known[name]
    if kind == "dtype" and name in _DTYPES:
        return _DTYPES[name]
    if kind == "float" and name in ("inf", "-inf"):
        return float(name)
    raise _wrong(f"an argument is {str(dict(value))[:80]}")


def _wrong(why: str) -> ModelError:
    return ModelError("the graph of the pruned model cannot be used", why, "copy it again, or prune the model anew")
