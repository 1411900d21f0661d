"""The graph that ONNX Runtime really runs: its optimizer's result, with the shapes and types it infers.

Level "extended" is where quantize/dequantize pairs become integer kernels; the level above it only changes
memory layout, not arithmetic, and hides shapes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from shrink.errors import RequestError
from shrink.inspect.ops import Port, printable

FIX = "fetch or export it again; the node named above, if any, is the one to change"
DTYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's word for a dtype, where it is another."""


@dataclass(frozen=True, slots=True)
class Optimized:
    """What the runtime made of a file."""

    model: Any  # onnx.ModelProto
    values: dict[str, tuple[tuple[int, ...], str]]  # computed tensor or input -> shape, dtype
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def _options(level: Any, free: frozenset[str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for name in sorted(free):
        options.add_free_dimension_override_by_name(name, 1)
    return options


def _session(data: bytes, options: Any) -> Any:
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _optimize(data: bytes, free: frozenset[str]) -> Any:
    """The optimized graph, as onnx.ModelProto; bytes go in, so that the runtime looks for no other file."""
    options = _options(onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, free)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        options.optimized_model_filepath = str(path)
        _session(data, options)
        return onnx.load_model_from_string(path.read_bytes())


def _port(value: Any) -> Port:
    dtype = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, int) else -1 for side in value.shape)
    return Port(printable(value.name), shape, DTYPES.get(dtype, dtype))


def _ask_shapes(model: Any, free: frozenset[str]) -> Any:
    """A session that has every computed tensor as an output, so that it says what it inferred."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    names = [name for node in probe.graph.node for name in node.output if name and name not in known]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return _session(probe.SerializeToString(), _options(onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, free))


def load(data: bytes, outputs: int, free: frozenset[str], name: str) -> Optimized:
    """Let ONNX Runtime optimize a file.

    Args:
        data: the file, without external data.
        outputs: how many outputs it has.
        free: names of free dimensions to be taken as 1 (the batch).
        name: the file's name, for errors.

    Raises:
        RequestError: the runtime refuses the file.
    """
    try:
        model = _optimize(data, free)
        asked = _ask_shapes(model, free)
    except Exception as error:  # the runtime's exceptions have no common base but this
        raise RequestError(f"{name} is refused by ONNX Runtime", printable(str(error)), FIX) from error
    ins, outs = map(_port, asked.get_inputs()), [_port(value) for value in asked.get_outputs()]
    ports = tuple(ins)
    raw = [*asked.get_inputs(), *asked.get_outputs()]
    values = {value.name: (port.shape, port.dtype) for value, port in zip(raw, [*ports, *outs], strict=True)}
    return Optimized(model, values, ports, tuple(outs[:outputs]))
