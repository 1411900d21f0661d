"""Hold the float constants of a written .tflite file in fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from shrink.export.flatbuffer import pack, parse
from shrink.export.narrow import is_table
from shrink.export.ports import code_of, opcode, tensor_like
from shrink.graph.tables import LEAST, Grid, grid

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
    return _narrowed(tree, {i: None for i in range(len(graph.tensors)) if _floats(tree, i).size >= LEAST})


def narrow_tables(model: bytes) -> bytes:
    """The file with its float tables in 8 bits where codes stand for just these numbers, else in 16 if they are large
    and fit; weights, biases and scales stay."""
    tree = parse(model)
    (graph,) = tree.subgraphs
    read = {index for op in graph.operators if code_of(tree, op) in TABLE_READERS for index in op.inputs}
    others = {index for op in graph.operators if code_of(tree, op) not in TABLE_READERS for index in op.inputs}
    tables = {index: _floats(tree, index) for index in read - others}
    tables = {index: held.reshape(graph.tensors[index].shape) for index, held in tables.items() if held.size >= LEAST}
    found = {index: grid(held) for index, held in tables.items()}
    wanted = {index: codes for index, codes in found.items() if codes is not None or is_table(tables[index])}
    return _narrowed(tree, wanted) if wanted else model


def _floats(tree: Any, index: int) -> NDArray[np.float32]:
    """The numbers of a constant 32-bit float tensor; none for any other."""
    tensor = tree.subgraphs[0].tensors[index]
    data = tree.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None:
        return np.zeros(0, np.float32)
    return np.frombuffer(np.asarray(data).tobytes(), np.float32)


def _narrowed(tree: Any, wanted: Mapping[int, Grid | None]) -> bytes:
    """The file with some constants in 8 bits, or in 16 where there are no codes, each widened by an op."""
    (graph,) = tree.subgraphs
    widened, before = [], {graph.tensors[index].buffer for index in wanted}
    for index, codes in sorted(wanted.items()):
        tensor = graph.tensors[index]
        content = schema.BufferT()
        if codes is None:
            content.data = _floats(tree, index).astype(np.float16).view(np.uint8)
            narrow, version = tensor_like(tensor, schema.TensorType.FLOAT16, None), 3
        else:
            content.data = codes.codes.reshape(-1).view(np.uint8)
            narrow, version = tensor_like(tensor, schema.TensorType.INT8, _steps(codes)), 5
        narrow.buffer = len(tree.buffers)
        tree.buffers.append(content)
        graph.tensors.append(narrow)
        op = schema.OperatorT()
        op.inputs, op.outputs = [len(graph.tensors) - 1], [index]
        op.opcodeIndex = opcode(tree, schema.BuiltinOperator.DEQUANTIZE, version=version)
        widened.append(op)
    for index in wanted:
        graph.tensors[index].buffer = 0
    for buffer in before - {tensor.buffer for tensor in graph.tensors}:
        tree.buffers[buffer].data = None
    graph.operators[:0] = widened
    return pack(tree)


def _steps(codes: Grid) -> Any:
    held = schema.QuantizationParametersT()
    held.scale, held.zeroPoint = codes.steps, np.zeros(len(codes.steps), np.int64)
    held.quantizedDimension = codes.axis
    return held
