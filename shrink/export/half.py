"""Hold the weights of a written file in 16 bits; what is computed from them stays 32-bit float.

Each large constant becomes a 16-bit one and an op that widens it. Both runtimes do that once, when they
load the file.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from shrink.errors import LoweringError
from shrink.export.flatbuffer import pack, parse
from shrink.export.ports import opcode, tensor_like
from shrink.graph.edit import constant, is_constant

LARGEST = float(torch.finfo(torch.float16).max)
LEAST = 256  # numbers in a constant below which the op that widens it takes more bytes than it saves


def check_half(graph_module: fx.GraphModule) -> None:
    """Refuse a weight that is too large for 16 bits: it would become infinite.

    Raises:
        LoweringError: names the layer.
    """
    for node in graph_module.graph.nodes:
        if is_constant(node) and float(constant(graph_module, node).abs().max()) > LARGEST:
            layer = next((user.meta.get("layer") for user in node.users), "") or node.name
            raise LoweringError(
                f"a weight of layer {layer!r} does not fit into a 16-bit float",
                f"it is above {LARGEST:g}",
                "export to a target with 32-bit or 8-bit weights",
            )


def halve_tflite(model: bytes) -> bytes:
    """The file with 16-bit constants."""
    tree = parse(model)
    (graph,) = tree.subgraphs
    widened, halved = [], {}
    for index, tensor in enumerate(list(graph.tensors)):
        data = tree.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or data is None or len(data) < 4 * LEAST:
            continue
        floats = np.frombuffer(np.asarray(data).tobytes(), np.float32)
        halved[tensor.buffer] = floats.astype(np.float16).view(np.uint8)
        half = tensor_like(tensor, schema.TensorType.FLOAT16, None)
        half.buffer, tensor.buffer = tensor.buffer, 0
        graph.tensors.append(half)
        op = schema.OperatorT()
        op.inputs, op.outputs = [len(graph.tensors) - 1], [index]
        op.opcodeIndex = opcode(tree, schema.BuiltinOperator.DEQUANTIZE, version=3)
        widened.append(op)
    for index, content in halved.items():
        tree.buffers[index].data = content
    graph.operators[:0] = widened
    return pack(tree)


def halve_onnx(model: onnx.ModelProto) -> None:
    """16-bit constants, in place."""
    widened = []
    for held in model.graph.initializer:
        values = numpy_helper.to_array(held)
        if values.dtype == np.float32 and values.size >= LEAST:
            wide, half = held.name, f"{held.name}_half"
            held.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
            widened.append(helper.make_node("Cast", [half], [wide], to=TensorProto.FLOAT))
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
