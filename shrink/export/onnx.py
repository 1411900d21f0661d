"""Print a graph as an .onnx file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import onnx
import torch
from torch import fx

from shrink.export.culprit import lowering_error
from shrink.export.names import Codes
from shrink.export.narrow import check_half
from shrink.export.onnx_names import name_ends, number_values
from shrink.export.onnx_narrow import halve_onnx, narrow_onnx_tables
from shrink.export.onnx_ports import take_pixels
from shrink.export.onnx_spelling import OPSET, spelled
from shrink.graph.shapes import input_shape


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
                program = _convert(spelled(graph_module), (example,))
            except Exception as error:  # the exporter raises many unrelated types; this is the border
                fix = "replace that op in the model by one the format has, or export to TFLite"
                raise lowering_error(graph_module, _convert, "ONNX", fix, error) from error
    finally:
        logging.disable(previous)
    assert program is not None  # it is, with dynamo=True
    model = program.model_proto
    name_ends(model)
    _give_zero_points(model)
    if pixels is not None:
        take_pixels(model, pixels)
    if half:
        halve_onnx(model)
    elif quantized:
        narrow_onnx_tables(model)
    if quantized:
        number_values(model)
    return bytes(model.SerializeToString())


def _convert(graph_module: fx.GraphModule, example: tuple[torch.Tensor, ...]) -> torch.onnx.ONNXProgram | None:
    return torch.onnx.export(graph_module, example, dynamo=True, opset_version=OPSET, optimize=True, verbose=False)


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
