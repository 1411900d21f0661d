"""Hold the weights of a written .tflite file in 16 bits."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from shrink.export.flatbuffer import pack, parse
from shrink.export.half import LEAST, is_table
from shrink.export.ports import code_of, opcode, tensor_like

TABLE_READERS = {
    schema.BuiltinOperator.ADD,
    schema.BuiltinOperator.SUB,
    schema.BuiltinOperator.MUL,
    schema.BuiltinOperator.CONCATENATION,
}


def halve_tflite(model: bytes) -> bytes:
    """The file with 16-bit constants."""
    tree = parse(model)
    (graph,) = tree.subgraphs
    return _halved(tree, {i for i in range(len(graph.tensors)) if _floats(tree, i).size >= LEAST})


def halve_tables(model: bytes) -> bytes:
    """The file with its large float tables in 16 bits, if they fit; weights, biases and scales stay."""
    tree = parse(model)
    (graph,) = tree.subgraphs
    read = {index for op in graph.operators if code_of(tree, op) in TABLE_READERS for index in op.inputs}
    others = {index for op in graph.operators if code_of(tree, op) not in TABLE_READERS for index in op.inputs}
    wanted = {index for index in read - others if is_table(_floats(tree, index))}
    return _halved(tree, wanted) if wanted else model


def _floats(tree: Any, index: int) -> NDArray[np.float32]:
    """The numbers of a constant 32-bit float tensor; none for any other."""
    tensor = tree.subgraphs[0].tensors[index]
    data = tree.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None:
        return np.zeros(0, np.float32)
    return np.frombuffer(np.asarray(data).tobytes(), np.float32)


def _halved(tree: Any, wanted: Collection[int]) -> bytes:
    """The file with some constants in 16 bits, each widened by an op."""
    (graph,) = tree.subgraphs
    widened, halved = [], {}
    for index in sorted(wanted):
        tensor = graph.tensors[index]
        halved[tensor.buffer] = _floats(tree, index).astype(np.float16).view(np.uint8)
        half = tensor_like(tensor, schema.TensorType.FLOAT16, None)
        half.buffer = tensor.buffer
        graph.tensors.append(half)
        op = schema.OperatorT()
        op.inputs, op.outputs = [len(graph.tensors) - 1], [index]
        op.opcodeIndex = opcode(tree, schema.BuiltinOperator.DEQUANTIZE, version=3)
        widened.append(op)
    for index in wanted:
        graph.tensors[index].buffer = 0
    for buffer, content in halved.items():
        tree.buffers[buffer].data = content
    graph.operators[:0] = widened
    return pack(tree)
