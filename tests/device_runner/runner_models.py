"""Tiny models for the tests: one linear layer over the whole image, written without a converter.

Every pixel has its own weight, so any change of the input changes the scores. All of them compute the
same function from the same WEIGHTS; the int8 files differ from the float ones by rounding alone.
"""

from __future__ import annotations

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, CLASSES = 12, 16, 5
SHAPE = (HEIGHT, WIDTH, 3)
WEIGHTS = (np.random.default_rng(3).normal(size=(CLASSES, *SHAPE)) / 16).astype(np.float32)

INPUT_SCALE, INPUT_ZERO = 0.02, -3
OUTPUT_SCALE, OUTPUT_ZERO = 0.1, 7
WEIGHT_SCALE = float(np.abs(WEIGHTS).max() / 127)


def make_tflite(quantized: bool) -> bytes:
    """One FULLY_CONNECTED, NHWC; int8 from end to end when quantized."""
    dtype = tfl.TensorType.INT8 if quantized else tfl.TensorType.FLOAT32
    weights = np.rint(WEIGHTS / WEIGHT_SCALE).astype(np.int8) if quantized else WEIGHTS
    model, graph, code, op = tfl.ModelT(), tfl.SubGraphT(), tfl.OperatorCodeT(), tfl.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = tfl.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if quantized else 1
    op.inputs, op.outputs = [0, 1, -1], [2]
    op.builtinOptionsType, op.builtinOptions = tfl.BuiltinOptions.FullyConnectedOptions, tfl.FullyConnectedOptionsT()
    graph.tensors = [
        _tensor("image", (1, *SHAPE), dtype, 0, (INPUT_SCALE, INPUT_ZERO) if quantized else None),
        _tensor("weights", (CLASSES, WEIGHTS[0].size), dtype, 1, (WEIGHT_SCALE, 0) if quantized else None),
        _tensor("scores", (1, CLASSES), dtype, 0, (OUTPUT_SCALE, OUTPUT_ZERO) if quantized else None),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [op]
    empty, constant = tfl.BufferT(), tfl.BufferT()
    constant.data = np.frombuffer(weights.reshape(CLASSES, -1).tobytes(), np.uint8)
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [empty, constant]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, shape: tuple[int, ...], dtype: int, buffer: int, codes: tuple[float, int] | None) -> tfl.TensorT:
    tensor = tfl.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), dtype, buffer
    if codes:
        tensor.quantization = tfl.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [codes[0]], [codes[1]]
    return tensor


def make_onnx(quantized: bool) -> bytes:
    """Flatten and Gemm, NCHW; with int8 input and output when quantized."""
    weights = np.ascontiguousarray(WEIGHTS.transpose(0, 3, 1, 2)).reshape(CLASSES, -1)
    constants = {
        "weights": weights,
        "in_scale": np.float32(INPUT_SCALE),
        "in_zero": np.int8(INPUT_ZERO),
        "out_scale": np.float32(OUTPUT_SCALE),
        "out_zero": np.int8(OUTPUT_ZERO),
    }
    core = [
        helper.make_node("Flatten", ["real" if quantized else "image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights"], ["logits" if quantized else "scores"], transB=1),
    ]
    before = [helper.make_node("DequantizeLinear", ["image", "in_scale", "in_zero"], ["real"])]
    after = [helper.make_node("QuantizeLinear", ["logits", "out_scale", "out_zero"], ["scores"])]
    dtype = TensorProto.INT8 if quantized else TensorProto.FLOAT
    graph = helper.make_graph(
        [*before, *core, *after] if quantized else core,
        "tiny",
        [helper.make_tensor_value_info("image", dtype, (1, 3, HEIGHT, WIDTH))],
        [helper.make_tensor_value_info("scores", dtype, (1, CLASSES))],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if quantized or k == "weights"],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
