"""The tables of a .tflite file, checked so that a reader may index them freely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from shrink.errors import RequestError
from shrink.inspect.kind import require
from shrink.inspect.ops import printable


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


OPS = _names(schema.BuiltinOperator)
DTYPES = {code: name.lower() for code, name in _names(schema.TensorType).items()}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the main graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool  # its values are in the file
    scales: tuple[float, ...]  # one: per tensor; several: per channel; none: not quantized
    zero_points: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Op:
    """An op of the main graph; tensors by index, -1 for an input that is left out."""

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any  # the schema's own table, or None


@dataclass(frozen=True, slots=True)
class Model:
    """The main graph of a file."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int  # graphs in the file, this one included


def _ints(values: Sequence[int] | None) -> tuple[int, ...]:
    return () if values is None else tuple(int(v) for v in values)


def _tensor(raw: Any, buffers: Sequence[Any]) -> Tensor:
    buffer, quant = buffers[raw.buffer], raw.quantization
    scales = () if quant is None or quant.scale is None else tuple(float(s) for s in quant.scale)
    shape = _ints(raw.shape)
    if any(side < 0 for side in shape):
        raise ValueError(f"a tensor has the shape {shape}")
    return Tensor(
        name=printable((raw.name or b"").decode("utf-8", "replace")),
        shape=shape,
        dtype=DTYPES[raw.type],
        constant=(buffer.data is not None and len(buffer.data) > 0) or buffer.size > 0,
        scales=scales,
        zero_points=() if quant is None else _ints(quant.zeroPoint),
    )


def _op(raw: Any, codes: Sequence[Any], tensors: int) -> Op:
    code = codes[raw.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)  # small codes live in the old byte field
    name = (code.customCode or b"CUSTOM").decode("utf-8", "replace") if OPS[number] == "CUSTOM" else OPS[number]
    inputs, outputs = _ints(raw.inputs), _ints(raw.outputs)
    if not all(-1 <= i < tensors for i in inputs) or not all(0 <= i < tensors for i in outputs):
        raise ValueError(f"{name} names a tensor that does not exist")
    return Op(printable(name, 60), int(code.version), inputs, outputs, raw.builtinOptions)


def _model(data: bytes) -> Model:
    if int.from_bytes(data[:4], "little") + 4 > len(data):
        raise ValueError("its root lies behind its end")
    raw = schema.ModelT.InitFromPackedBuf(data)
    graph = raw.subgraphs[0]
    tensors = tuple(_tensor(t, raw.buffers) for t in graph.tensors)
    ops = tuple(_op(o, raw.operatorCodes, len(tensors)) for o in graph.operators or ())
    ports = _ints(graph.inputs), _ints(graph.outputs)
    if not ports[0] or not ports[1] or not all(0 <= i < len(tensors) for side in ports for i in side):
        raise ValueError("its inputs or outputs do not exist")
    return Model(tensors, ops, *ports, subgraphs=len(raw.subgraphs))


def load(data: bytes, name: str) -> Model:
    """Read the main graph of a .tflite file.

    Raises:
        RequestError: not a TFLite file, or a damaged one.
    """
    require(data, "tflite", name)
    try:
        return _model(data)
    except Exception as error:  # generated code fails in any way on damaged offsets
        why = printable(f"{type(error).__name__}: {error}")
        raise RequestError(f"{name} is a damaged TFLite file", why, "fetch or export it again") from error
