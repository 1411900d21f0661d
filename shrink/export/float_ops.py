"""Float ops between codes, in float again.

Where an op reads dequantized codes and its answer is quantized, the converter writes it in int8. XNNPACK has no int8
form of some of these, and the graph is cut in two at each; it has the float form and both conversions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrink.export.flatbuffer import pack, parse
from shrink.export.ports import code_of, opcode, tensor_like

OP, TYPE = schema.BuiltinOperator, schema.TensorType
FLOAT_ONLY = {OP.GELU, OP.AVERAGE_POOL_2D, OP.HARD_SWISH, OP.SOFTMAX, OP.MAXIMUM, OP.MINIMUM}
"""Ops of one output that XNNPACK computes in float, and not on int8 codes."""


def in_float(model: bytes) -> bytes:
    """The file with each int8 op of `FLOAT_ONLY` between dequantizations and a quantization."""
    tree = parse(model)
    (graph,) = tree.subgraphs
    found = [op for op in graph.operators if code_of(tree, op) in FLOAT_ONLY and _on_codes(graph, op)]
    if not found:
        return model
    graph.operators = [new for op in graph.operators for new in (_between(tree, graph, op) if op in found else (op,))]
    return pack(tree)


def _on_codes(graph: Any, op: Any) -> bool:
    return all(graph.tensors[port].type == TYPE.INT8 for port in (*op.inputs, *op.outputs))


def _between(tree: Any, graph: Any, op: Any) -> Iterator[Any]:
    """Dequantize, the op, quantize: with float tensors of its own on either side."""
    before, after = [*op.inputs], op.outputs[0]
    # New lists: those of a file that was read may lie in the same bytes as another op's.
    op.inputs, op.outputs = ([_float_like(graph, port) for port in ports] for ports in (before, [after]))
    for source, result in zip(before, op.inputs, strict=True):
        if (codes := tree.buffers[graph.tensors[source].buffer].data) is None:
            yield _conversion(tree, OP.DEQUANTIZE, source, result)
        else:
            graph.tensors[result].buffer = len(tree.buffers)
            tree.buffers.append(_as_floats(codes, graph.tensors[source].quantization))
    yield op
    yield _conversion(tree, OP.QUANTIZE, op.outputs[0], after)


def _as_floats(codes: Any, held: Any) -> Any:
    """The buffer of a constant with one scale."""
    (scale,), (zero,) = held.scale, held.zeroPoint
    content = schema.BufferT()
    numbers = (np.asarray(codes).view(np.int8).astype(np.float32) - zero) * np.float32(scale)
    content.data = numbers.astype(np.float32).view(np.uint8)
    return content


def _float_like(graph: Any, index: int) -> int:
    graph.tensors.append(tensor_like(graph.tensors[index], TYPE.FLOAT32, None))
    return len(graph.tensors) - 1


def _conversion(tree: Any, builtin: int, source: int, result: int) -> Any:
    op = schema.OperatorT()
    op.inputs, op.outputs, op.opcodeIndex = [source], [result], opcode(tree, builtin, version=2)
    return op
