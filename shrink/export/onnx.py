"""Print a graph as an .onnx file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import fx

from shrink.export.culprit import lowering_error
from shrink.export.names import INPUT_NAME, OUTPUT_NAME, Codes
from shrink.export.narrow import check_half
from shrink.export.onnx_narrow import halve_onnx, narrow_onnx_tables
from shrink.export.onnx_ports import take_pixels
from shrink.graph.edit import DYNAMIC, add_constant, call, constant, copied, replace
from shrink.graph.shapes import input_shape

aten = torch.ops.aten
OPSET = 21  # the first in which every 8-bit type of QuantizeLinear is settled


def to_onnx(
    graph_module: fx.GraphModule, *, quantized: bool = False, pixels: Codes | None = None, half: bool = False
) -> bytes:
    """Convert a float graph, or one with quantize and dequantize nodes, to ONNX.

    Args:
        graph_module: of one image, in the layout that the file is to take.
        quantized: whether the graph has quantize and dequantize nodes; its float tables are held in 8 or 16 bits.
        pixels: dtype of a file that takes grey levels, as the graph must; None: the file takes floats.
        half: whether the weights are held in 16 bits.

    Raises:
        LoweringError: the converter has no form for an op, which is named; or a weight does not fit into 16 bits.
    """
    if half:
        check_half(graph_module)
    example = torch.zeros(input_shape(graph_module))
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                program = _convert(_with_global_pools(with_integer_linears(graph_module)), (example,))
            except Exception as error:  # the exporter raises many unrelated types; this is the border
                fix = "replace that op in the model by one the format has, or export to TFLite"
                raise lowering_error(graph_module, _convert, "ONNX", fix, error) from error
    finally:
        logging.disable(previous)
    assert program is not None  # it is, with dynamo=True
    model = program.model_proto
    _rename(model)
    _give_zero_points(model)
    if pixels is not None:
        take_pixels(model, pixels)
    if half:
        halve_onnx(model)
    elif quantized:
        narrow_onnx_tables(model)
    return bytes(model.SerializeToString())


def _convert(graph_module: fx.GraphModule, example: tuple[torch.Tensor, ...]) -> torch.onnx.ONNXProgram | None:
    return torch.onnx.export(graph_module, example, dynamo=True, opset_version=OPSET, optimize=True, verbose=False)


def with_integer_linears(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy in which quantized linears are spelled so that ONNX Runtime fuses them.

    It does so for a weight of codes (K, O) that MatMul reads straight from DequantizeLinear; the
    transpose a PyTorch linear (O, K) would leave between the two makes it dequantize on every run.
    """
    result = copied(graph_module)
    for node in list(result.graph.nodes):
        if not _is_integer_linear(node):
            continue
        codes, scales = (constant(result, n) for n in node.args[1].args[:2])  # of dequantize_per_channel
        with result.graph.inserting_before(node):
            weight = add_constant(result, f"{node.name}_matrix", codes.t().contiguous())
            scale = add_constant(result, f"{node.name}_scales", scales)
            bias = node.args[2] if len(node.args) > 2 else None
            if granularity := node.meta.get(DYNAMIC):
                arguments = (node.args[0], weight, scale, bias)
                new = result.graph.call_function(SPELLINGS[granularity], arguments)
            else:
                source, step, zero, *_ = node.args[0].args  # of dequantize_per_tensor
                new = result.graph.call_function(static_linear, (source, weight, scale, bias, step, zero))
        node.replace_all_uses_with(new)
        result.graph.erase_node(node)
    result.graph.eliminate_dead_code()
    result.recompile()
    return result


def _with_global_pools(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Spell means over all places as pools, in place: those ONNX Runtime computes on codes."""
    for node in list(graph_module.graph.nodes):
        if node.target is aten.mean.dim and _is_global_pool(*node.args):
            replace(node, call(node, global_pool, node.args[0]))
    graph_module.recompile()
    return graph_module


def _is_global_pool(x: fx.Node, axes: Sequence[int] | None, keepdim: bool = False) -> bool:
    rank = len(x.meta["shape"])
    return keepdim and rank == 4 and axes is not None and sorted(axis % rank for axis in axes) == [2, 3]


def global_pool(x: torch.Tensor) -> torch.Tensor:
    """GlobalAveragePool of (N, C, H, W), (N, C, 1, 1)."""
    shape = (*x.shape[:2], 1, 1)
    pooled: torch.Tensor = torch.onnx.ops.symbolic("GlobalAveragePool", (x,), dtype=x.dtype, shape=shape, version=OPSET)
    return pooled


def _is_integer_linear(node: fx.Node) -> bool:
    weight = node.args[1] if node.target is aten.linear.default else None
    return isinstance(weight, fx.Node) and "dequantize_per_channel" in str(weight.target)


def static_linear(
    codes: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    bias: torch.Tensor | None,
    step: float,
    zero: int,
) -> torch.Tensor:
    """MatMulInteger of codes (..., K) with a fixed step and zero point; the rest as in `dynamic_linear`.

    A MatMul between DequantizeLinear nodes becomes an integer product only if its result goes straight
    to a QuantizeLinear, which a bias prevents.
    """
    middle = torch.full((), zero, dtype=codes.dtype)
    shape = (*codes.shape[:-1], weight.shape[1])
    product = torch.onnx.ops.symbolic(
        "MatMulInteger", (codes, weight, middle), dtype=torch.int32, shape=shape, version=OPSET
    )
    answer = product.to(torch.float32) * (step * scales)
    return answer if bias is None else answer + bias


def dynamic_linear(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """DynamicQuantizeLinear, MatMulInteger and a product: ONNX Runtime fuses them into one kernel.

    Args:
        x: (..., K) float32.
        weight: (K, O) int8 codes.
        scales: (O,) of the weight.
        bias: (O,) or None.
    """
    codes, scale, zero = torch.onnx.ops.symbolic_multi_out(
        "DynamicQuantizeLinear",
        (x,),
        dtypes=(torch.uint8, torch.float32, torch.uint8),
        shapes=(x.shape, (), ()),
        version=OPSET,
    )
    shape = (*x.shape[:-1], weight.shape[1])
    product = torch.onnx.ops.symbolic(
        "MatMulInteger", (codes, weight, zero), dtype=torch.int32, shape=shape, version=OPSET
    )
    answer = product.to(torch.float32) * (scale * scales)
    return answer if bias is None else answer + bias


def row_linear(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A range for each row of x, as `round_dynamic` of the simulation takes it; shapes as in `dynamic_linear`.

    The products of the zero points, which differ from row to row, are subtracted afterwards.
    """
    low = x.amin(-1, keepdim=True).clamp_max(0)
    step = ((x.amax(-1, keepdim=True).clamp_min(0) - low) / 255).clamp_min(2.0**-23)
    zero = torch.round(-low / step)
    one, none = torch.full((), 1.0), torch.full((), 0, dtype=torch.uint8)
    codes = torch.onnx.ops.symbolic(
        "QuantizeLinear", (x / step + zero, one, none), dtype=torch.uint8, shape=x.shape, version=OPSET
    )
    shape = (*x.shape[:-1], weight.shape[1])
    product = torch.onnx.ops.symbolic(
        "MatMulInteger", (codes, weight, none), dtype=torch.int32, shape=shape, version=OPSET
    )
    answer = (product.to(torch.float32) - zero * weight.to(torch.float32).sum(0)) * step * scales
    return answer if bias is None else answer + bias


SPELLINGS = {"tensor": dynamic_linear, "row": row_linear}


def _give_zero_points(model: onnx.ModelProto) -> None:
    """Give every weight a zero point of its own: equal ones were made one.

    ONNX Runtime rewrites weights and zero points for x86 without VNNI, where it is asked for exact sums, and
    version 1.32 refuses to rewrite a zero point twice.
    """
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in held and len(node.input) > 2:
            mine = onnx.TensorProto()
            mine.CopyFrom(held[node.input[2]])
            mine.name = f"{node.output[0]}_zero"
            model.graph.initializer.append(mine)
            node.input[2] = mine.name
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _rename(model: onnx.ModelProto) -> None:
    """Give input and output the names that all bundles have, and drop what only a debugger reads."""
    ends = {model.graph.input[0].name: INPUT_NAME, model.graph.output[0].name: OUTPUT_NAME}
    inner = {name: f"inner_{name}" for name in ends.values()}  # a weight may have that name already
    names = inner | ends
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.value_info[:]
