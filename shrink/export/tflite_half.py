"""Hold the weights of a written .tflite file in 16 bits."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrink.export.flatbuffer import pack, parse
from shrink.export.half import LEAST
from shrink.export.ports import opcode, tensor_like


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
