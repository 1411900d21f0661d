"""Products of two activations as batch matrix products.

The converter writes one whose second factor is a transposed matrix as a fully connected layer whose weights
are computed. XNNPACK takes such a layer with constant weights only, and the graph is cut in two there.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from shrink.export.flatbuffer import pack, parse
from shrink.export.ports import code_of, opcode

OP, TYPE = schema.BuiltinOperator, schema.TensorType
NONE = schema.ActivationFunctionType.NONE


def join_products(model: bytes) -> bytes:
    """The file with every float product x yᵀ of two activations as BATCH_MATMUL."""
    tree = parse(model)
    (graph,) = tree.subgraphs
    found = [op for op in graph.operators if code_of(tree, op) == OP.FULLY_CONNECTED and _is_product(tree, graph, op)]
    for op in found:
        op.inputs = op.inputs[:2]
        op.opcodeIndex = opcode(tree, OP.BATCH_MATMUL, version=1)
        op.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions
        op.builtinOptions = schema.BatchMatMulOptionsT()
        op.builtinOptions.adjY = True
    return pack(tree) if found else model


def _is_product(tree: Any, graph: Any, op: Any) -> bool:
    """Whether both factors are computed, in float, with nothing added and nothing clamped."""
    x, y = (graph.tensors[index] for index in op.inputs[:2])
    plain = all(index < 0 for index in op.inputs[2:]) and op.builtinOptions.fusedActivationFunction == NONE
    same_rank = len(x.shape) == len(graph.tensors[op.outputs[0]].shape)
    return plain and same_rank and x.type == y.type == TYPE.FLOAT32 and tree.buffers[y.buffer].data is None
