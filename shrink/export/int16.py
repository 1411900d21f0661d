"""Widen the activations of a .tflite file from 8 to 16 bits: int16x8.

The converter does not write 16-bit activations. So the file is written with 8-bit ones that cover the
same ranges, and each of their tensors is given the symmetric 16-bit scale of its range; weights stay.
16-bit codes are symmetric: zero point 0, biases in 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from shrink.export.flatbuffer import pack, parse
from shrink.export.ports import code_of, opcode, tensor_like

OP, TYPE = schema.BuiltinOperator, schema.TensorType
HIGH = 32767
WEIGHTED = {OP.CONV_2D, OP.DEPTHWISE_CONV_2D, OP.FULLY_CONNECTED}
GIVEN = {OP.SOFTMAX: 1 / 32768, OP.LOGISTIC: 1 / 32768, OP.TANH: 1 / 32768}
"""Ops whose kernel asks for that scale of its output."""

MOVERS = {OP.RESHAPE, OP.TRANSPOSE, OP.SLICE, OP.STRIDED_SLICE, OP.PAD, OP.MAX_POOL_2D, OP.AVERAGE_POOL_2D}
"""Ops whose output has the scale of their first input."""

VERSIONS = {
    OP.ADD: 4, OP.AVERAGE_POOL_2D: 3, OP.BATCH_MATMUL: 4, OP.CONCATENATION: 3, OP.CONV_2D: 8, OP.DEPTHWISE_CONV_2D: 7,
    OP.DEQUANTIZE: 3, OP.FULLY_CONNECTED: 11, OP.LOGISTIC: 3, OP.MAX_POOL_2D: 3, OP.MEAN: 3, OP.MUL: 4, OP.QUANTIZE: 3,
    OP.RSQRT: 3, OP.SLICE: 4, OP.SOFTMAX: 3, OP.SUB: 5, OP.TANH: 3, OP.TRANSPOSE: 5,
}  # fmt: skip
"""Op -> version that says it has 16-bit operands."""

Key = tuple[float, int, bytes]
"""Scale, zero point and codes of an 8-bit constant."""

Numbers = NDArray[np.float32]


def widen(model: bytes, constants: Mapping[Key, Numbers]) -> bytes:
    """The file with 16-bit activations.

    Args:
        model: with 8-bit activations and weights.
        constants: the numbers behind 8-bit constants, from `known`; one that is not there keeps its 8 bits' worth.
    """
    tree = parse(model)
    (graph,) = tree.subgraphs
    weights = {op.inputs[1] for op in graph.operators if code_of(tree, op) in WEIGHTED}
    held = {i: t for i, t in enumerate(graph.tensors) if t.type == TYPE.INT8 and i not in weights}
    scales = {index: _reach(tensor) / HIGH for index, tensor in held.items()}
    for op in graph.operators:  # in the order run: a mover takes the scale that its input was given
        builtin, out = code_of(tree, op), op.outputs[0]
        if builtin in GIVEN:
            scales[out] = GIVEN[builtin]
        elif builtin in MOVERS and op.inputs[0] in scales:
            scales[out] = scales[op.inputs[0]]
        if builtin in WEIGHTED and len(op.inputs) > 2 and op.inputs[2] >= 0:
            _widen_bias(tree, graph.tensors[op.inputs[2]], scales[op.inputs[0]], graph.tensors[op.inputs[1]])
        if builtin in (OP.ADD, OP.SUB):
            op.builtinOptions.potScaleInt16 = False
        if builtin in VERSIONS:
            opcode(tree, builtin, VERSIONS[builtin])
    for index, tensor in held.items():
        data = tree.buffers[tensor.buffer].data
        if data is not None:
            numbers = _numbers(tensor, bytes(data), constants)
            codes = np.clip(np.rint(numbers / scales[index]), -HIGH, HIGH)
            tensor.buffer = _buffer(tree, codes.astype(np.int16))
        tensor.type = TYPE.INT16
        tensor.quantization.scale = np.array([scales[index]], np.float32)
        tensor.quantization.zeroPoint = np.zeros(1, np.int64)
    graph.operators = [each for op in graph.operators for each in (*_rescaled(tree, op, scales), op)]
    return pack(_without_orphans(tree))


def _rescaled(tree: Any, op: Any, scales: Mapping[int, float]) -> Iterator[Any]:
    """What brings the parts of a concatenation to its scale: a kernel may have asked for another one of a part."""
    if code_of(tree, op) != OP.CONCATENATION:
        return
    tensors = tree.subgraphs[0].tensors
    for spot, index in enumerate(op.inputs):
        if index in scales and scales[index] != scales[op.outputs[0]]:
            held = schema.QuantizationParametersT()
            held.scale, held.zeroPoint = np.array([scales[op.outputs[0]]], np.float32), np.zeros(1, np.int64)
            tensors.append(tensor_like(tensors[index], TYPE.INT16, held))
            step = schema.OperatorT()
            step.inputs, step.outputs = [index], [len(tensors) - 1]
            step.opcodeIndex = opcode(tree, OP.QUANTIZE, VERSIONS[OP.QUANTIZE])
            op.inputs[spot] = len(tensors) - 1
            yield step


def known(scale: float, zero_point: int, numbers: Numbers) -> dict[Key, Numbers]:
    """A constant by the codes the converter holds it in, laid out as in the graph and channels last."""
    layouts = [numbers, numbers.transpose(0, 2, 3, 1)] if numbers.ndim == 4 else [numbers]
    found = {}
    for laid_out in layouts:
        codes = np.clip(np.rint(laid_out / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
        found[float(np.float32(scale)), zero_point, codes.tobytes()] = laid_out.reshape(-1)
    return found


def _key(tensor: Any, data: bytes) -> Key:
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]), data


def _numbers(tensor: Any, data: bytes, constants: Mapping[Key, Numbers]) -> NDArray[Any]:
    scale, zero_point, _ = key = _key(tensor, data)
    if key in constants:
        return constants[key]
    return (np.frombuffer(data, np.int8).astype(np.float64) - zero_point) * scale


def _reach(tensor: Any) -> float:
    """The larger end of the range that the 8-bit codes cover."""
    scale, zero_point, _ = _key(tensor, b"")
    return scale * max(zero_point + 128, 127 - zero_point)


def _widen_bias(tree: Any, bias: Any, scale: float, weight: Any) -> None:
    """The same bias in steps of the new input scale times the weight's; a shared one is widened once."""
    if bias.type != TYPE.INT32:
        return
    before = np.asarray(bias.quantization.scale, np.float64)
    after = scale * np.asarray(weight.quantization.scale, np.float64)
    codes = np.frombuffer(bytes(tree.buffers[bias.buffer].data), np.int32)
    bias.buffer, bias.type = _buffer(tree, np.rint(codes * (before / after)).astype(np.int64)), TYPE.INT64
    bias.quantization.scale = after.astype(np.float32)


def _buffer(tree: Any, codes: NDArray[Any]) -> int:
    buffer = schema.BufferT()
    buffer.data = np.ascontiguousarray(codes).view(np.uint8).reshape(-1)
    tree.buffers.append(buffer)
    return len(tree.buffers) - 1


def _without_orphans(tree: Any) -> Any:
    """Forget the data that nothing reads any more."""
    read = {tensor.buffer for tensor in tree.subgraphs[0].tensors}
    for index, buffer in enumerate(tree.buffers):
        if index not in read:
            buffer.data = None
    return tree
