"""Let a .tflite file take and give integers where the converter wrote floats.

The converter knows float inputs and outputs only: one quantizes at the entrance, the other
dequantizes at the exit. Both are taken out, or fed with integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrink.export.flatbuffer import pack, parse
from shrink.export.names import Codes

KINDS = {"int8": (schema.TensorType.INT8, -128), "uint8": (schema.TensorType.UINT8, 0)}
"""dtype -> type in the file, and the code of grey level 0."""


def take_pixels(model: bytes, dtype: Codes) -> bytes:
    """A file that takes grey levels as codes, from one that takes them as floats 0..255.

    If nothing but a quantization to the very same codes read the floats, they go straight in.
    """
    tree = parse(model)
    (graph,) = tree.subgraphs
    kind, zero = KINDS[dtype]
    floats = graph.inputs[0]
    readers = [op for op in graph.operators if floats in op.inputs]
    to_codes = schema.BuiltinOperator.QUANTIZE
    if [code_of(tree, op) for op in readers] == [to_codes] and _levels(graph.tensors[readers[0].outputs[0]]):
        if dtype == "int8":
            graph.operators.remove(readers[0])
            _rename(tree, graph.inputs, floats, readers[0].outputs[0])
        else:  # the op then moves the codes by 128
            graph.tensors[floats].type, graph.tensors[floats].quantization = kind, _scale(1.0, zero)
        return pack(tree)
    graph.tensors.append(tensor_like(graph.tensors[floats], kind, _scale(1.0, zero)))
    op = schema.OperatorT()
    op.inputs, op.outputs = [len(graph.tensors) - 1], [floats]
    op.opcodeIndex = opcode(tree, schema.BuiltinOperator.DEQUANTIZE, version=2)
    graph.operators.insert(0, op)
    _rename(tree, graph.inputs, floats, len(graph.tensors) - 1)
    return pack(tree)


def only_codes(model: bytes) -> bytes:
    """A file that takes and gives codes, from one that quantizes at its entrance and dequantizes at its exit.

    Where pixels go in already, that quantization moves codes, and stays.
    """
    tree = parse(model)
    (graph,) = tree.subgraphs
    readers = [op for op in graph.operators if graph.inputs[0] in op.inputs]
    takes_floats = graph.tensors[graph.inputs[0]].type == schema.TensorType.FLOAT32
    if takes_floats and [code_of(tree, op) for op in readers] == [schema.BuiltinOperator.QUANTIZE]:
        graph.operators.remove(readers[0])
        _rename(tree, graph.inputs, graph.inputs[0], readers[0].outputs[0])
    (last,) = (op for op in graph.operators if graph.outputs[0] in op.outputs)
    if code_of(tree, last) == schema.BuiltinOperator.DEQUANTIZE:
        graph.operators.remove(last)
        _rename(tree, graph.outputs, graph.outputs[0], last.inputs[0])
    return pack(tree)


def code_of(tree: Any, op: Any) -> int:
    return int(tree.operatorCodes[op.opcodeIndex].builtinCode)


def _levels(tensor: Any) -> bool:
    """Whether the codes of an int8 tensor are the grey levels, 128 lower."""
    held = tensor.quantization
    return tensor.type == schema.TensorType.INT8 and (list(held.scale), list(held.zeroPoint)) == ([1.0], [-128])


def _scale(scale: float, zero: int) -> Any:
    held = schema.QuantizationParametersT()
    held.scale, held.zeroPoint = np.array([scale], np.float32), np.array([zero], np.int64)
    return held


def tensor_like(like: Any, kind: int, held: Any) -> Any:
    """Another tensor of that shape, without data."""
    tensor = schema.TensorT()
    tensor.shape, tensor.shapeSignature, tensor.hasRank = like.shape, like.shapeSignature, like.hasRank
    tensor.type, tensor.quantization, tensor.buffer, tensor.name = kind, held, 0, b"codes"
    return tensor


def opcode(tree: Any, builtin: int, version: int) -> int:
    """Index of an op's code in the file's table, written if it is not there."""
    for index, code in enumerate(tree.operatorCodes):
        if code.builtinCode == builtin:
            code.version = max(code.version, version)
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    tree.operatorCodes.append(code)
    return len(tree.operatorCodes) - 1


def _rename(tree: Any, ports: Any, old: int, new: int) -> None:
    """Let a port of the graph, and of its signatures, be another tensor."""
    ports[0] = new
    for signature in tree.signatureDefs or ():
        for port in (*signature.inputs, *signature.outputs):
            if port.tensorIndex == old:
                port.tensorIndex = new
