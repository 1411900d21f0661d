"""Let an .onnx file take integers where the exporter wrote floats."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shrink.export.names import Codes

KINDS = {"int8": (TensorProto.INT8, np.int8(-128)), "uint8": (TensorProto.UINT8, np.uint8(0))}
"""dtype -> type in the file, and the code of grey level 0."""


def take_pixels(model: onnx.ModelProto, dtype: Codes) -> None:
    """Let the file take grey levels as codes, where it takes them as floats 0..255; in place.

    If nothing but a quantization to the very same codes read the floats, they go straight in.
    """
    graph = model.graph
    image = graph.input[0]
    kind, zero = KINDS[dtype]
    image.type.tensor_type.elem_type = kind
    readers = [node for node in graph.node if image.name in node.input]
    if len(readers) == 1 and _keeps_levels(graph, readers[0], zero):
        _read_instead(graph, readers[0].output[0], image.name)
        graph.node.remove(readers[0])
        return
    # plain arithmetic: ONNX Runtime 1.32 moves a DequantizeLinear of int8 past a Transpose and loses its type
    floats, levels, low = (f"{image.name}_{part}" for part in ("floats", "levels", "low"))
    _read_instead(graph, image.name, levels)
    graph.initializer.append(numpy_helper.from_array(np.asarray(zero, np.float32), low))
    graph.node.insert(0, helper.make_node("Cast", [image.name], [floats], to=TensorProto.FLOAT))
    graph.node.insert(1, helper.make_node("Sub", [floats, low], [levels]))


def _keeps_levels(graph: onnx.GraphProto, node: onnx.NodeProto, zero: np.generic) -> bool:
    """Whether a node quantizes with scale 1 and that zero point, and its type."""
    if node.op_type != "QuantizeLinear" or len(node.input) < 3:
        return False
    known = {tensor.name: tensor for tensor in graph.initializer}
    known |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
    values = [numpy_helper.to_array(known[name]) for name in node.input[1:3] if name in known]
    return len(values) == 2 and values[0] == 1 and values[1].dtype == zero.dtype and values[1] == zero


def _read_instead(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
