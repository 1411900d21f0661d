"""The values inside a written int8 file, found by their codes: no name of a layer survives a converter.

A value of the simulated graph is held on codes with a scale and a zero point, and so it is in the file. Among the
tensors of the file with that scale, zero point and number of values, the nearest one is taken for it.

TFLite: the runtime keeps no inner values of a delegated graph, so its own kernels run instead of XNNPACK's. ONNX
Runtime: inner values are made outputs, which keeps some kernels from being fused. So this tells whether the file is
right, not how a fast kernel rounds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

from shrink.debug.layers import CODES, decibel

Floats = NDArray[np.float32]
Run = Callable[[NDArray[np.generic]], "list[Inner]"]  # an encoded image -> all inner values on codes
UNSIGNED = 128  # zero points of uint8 codes are higher by this


@dataclass(frozen=True, slots=True)
class Inner:
    """A value on codes; real numbers, in the layout of whoever holds it."""

    scale: float
    zero: int  # of int8 codes
    real: Floats


def held(simulated: fx.GraphModule) -> Iterator[tuple[str, str, float, int]]:
    """(op whose output it is, node of the real values, scale, zero point) of every value on codes, in order."""
    for node in simulated.graph.nodes:
        if CODES in str(node.target) and "dequantize" not in str(node.target):
            back = next(iter(node.users))
            yield node.args[0].name, back.name, float(node.args[1]), int(node.args[2])


def tflite(model: bytes) -> Run:
    """Of a .tflite file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings(action="ignore"):  # that keeping all tensors takes memory
        interpreter = Interpreter(
            model_content=model,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    written = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}
    wanted = [d for d in interpreter.get_tensor_details() if d["dtype"] is np.int8 and int(d["index"]) in written
              and len(d["quantization_parameters"]["scales"]) == 1]  # fmt: skip

    def run(x: NDArray[np.generic]) -> list[Inner]:
        interpreter.set_tensor(entry, x)
        interpreter.invoke()
        return [_inner(interpreter.get_tensor(d["index"]), *d["quantization"]) for d in wanted]

    return run


def _inner(codes: NDArray[np.int8], scale: float, zero: int) -> Inner:
    return Inner(float(scale), int(zero), (codes.astype(np.float32) - zero) * np.float32(scale))


def onnx_runtime(model: bytes) -> Run:
    """Of an .onnx file; its codes may be uint8."""
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    from device_runner.engines.onnxruntime import EXACT_SUMS

    proto = onnx.load_model_from_string(model)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    found: dict[str, tuple[float, int]] = {}
    known = set(constants)  # before any image: the runtime computes these once, and then no output may have their names
    for node in proto.graph.node:
        known.update(node.output if all(name in known for name in node.input if name) else ())
        spots = node.input[1:3]
        if node.op_type != "DequantizeLinear" or node.input[0] in known or not all(s in constants for s in spots):
            continue
        scale, zero = (numpy_helper.to_array(constants[s]) for s in spots)
        if scale.size == 1 and node.output[0] not in found:
            shift = UNSIGNED if zero.dtype == np.uint8 else 0
            found[node.output[0]] = float(scale.ravel()[0]), int(zero.ravel()[0]) - shift
    given = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in found if name not in given)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_SUMS)  # on every processor: it is not timed
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(x: NDArray[np.generic]) -> list[Inner]:
        values = session.run(list(found), {session.get_inputs()[0].name: x}) if found else []
        return [Inner(*codes, value) for codes, value in zip(found.values(), values, strict=True)]

    return run


RUNS: Mapping[str, Callable[[bytes], Run]] = {"tflite": tflite, "onnx": onnx_runtime}
"""format -> how its inner values are had."""


def file_errors(
    wanted: Sequence[tuple[str, str, float, int]],
    images: Iterable[tuple[Mapping[str, Floats], list[Inner]]],
) -> dict[str, float]:
    """SQNR in dB of values in the file against the simulation; values that were not found are left out.

    Args:
        wanted: from `held`.
        images: for each, the simulated values by node and the inner values of the file.
    """
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for simulated, inner in images:
        for name, node, scale, zero in wanted:
            real = simulated[node]
            errors = [_distance(real, one.real) for one in inner
                      if one.zero == zero and math.isclose(one.scale, scale, rel_tol=1e-5)]  # fmt: skip
            near = min(errors, default=math.inf)
            noise[name] = noise.get(name, 0.0) + near
            signal[name] = signal.get(name, 0.0) + float(np.square(real, dtype=np.float64).sum())
    return {name: decibel(signal[name], noise[name]) for name in noise if math.isfinite(noise[name])}


def _distance(wanted: Floats, given: Floats) -> float:
    """Sum of squared differences, in the layout of the simulation or that of TFLite; infinite for other shapes."""
    layouts: list[Any] = [given, given.transpose(0, 3, 1, 2)] if given.ndim == 4 else [given]
    fitting = [one for one in layouts if one.shape == wanted.shape] or [
        one.reshape(wanted.shape) for one in layouts[:1] if one.size == wanted.size
    ]
    return min((float(np.square(one.astype(np.float64) - wanted).sum()) for one in fitting), default=math.inf)
