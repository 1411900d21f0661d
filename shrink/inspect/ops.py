"""What one op of a file is: the vocabulary of this room."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Format = Literal["tflite", "onnx"]

Compute = Literal["int8", "int8-dynamic", "int16x8", "fp16", "float32", "none"]
"""Arithmetic of an op. int8-dynamic: activations are quantized at every run; none: moves or relabels data."""

INT8: frozenset[str] = frozenset({"int8", "int8-dynamic"})
FLOAT: frozenset[str] = frozenset({"float32", "fp16"})

BITS = {
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "int64": 64, "uint64": 64, "int32": 32, "uint32": 32,
    "int16": 16, "uint16": 16, "int8": 8, "uint8": 8, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "bool": 8,
}  # fmt: skip
"""dtype -> bits of one element."""

EIGHT_BITS = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2"})
"""dtypes of weights held in 8 bits or fewer."""

WEIGHTS = EIGHT_BITS | {"float32", "float16", "bfloat16", "int16", "float64"}
"""dtypes a weight can have; int32 constants are biases, shapes and axes."""

ARITHMETIC: dict[str, Compute] = {
    "int8": "int8", "uint8": "int8", "int16": "int16x8", "float16": "fp16",
    "float32": "float32", "float64": "float32", "bfloat16": "float32",
}  # fmt: skip
"""Operand dtype of an op without weights -> its arithmetic; integers of 32 bits and more are indices."""


@dataclass(frozen=True, slots=True)
class OpRecord:
    """One op as the runtime runs it."""

    index: int  # position in the file (tflite) or in the runtime's graph (onnx)
    op: str  # TFLite builtin name or ONNX op type
    version: int | None  # op version in the file; None for onnx
    layer: str  # name of the first output tensor (tflite) or of the node (onnx)
    input_dtypes: tuple[str, ...]
    output_dtype: str
    output_shape: tuple[int, ...]
    macs: int  # multiply-accumulates of one inference
    weight_bytes: int  # bytes of weights this op is the first to use, as the file holds them
    weight_dtype: str | None  # as the file holds them; None without weights
    per_channel: bool  # the weights have a scale per channel
    compute: Compute
    delegated: bool | None  # None: unknown, or a runtime without delegates
    note: str = ""  # why it is float although something says int8
    unit_3x3: bool = False  # an ungrouped 3x3 convolution at stride 1, which runtimes compute with fewer products


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a file. real = (code - zero_point) * scale when it is quantized."""

    name: str
    shape: tuple[int, ...]  # with the batch dimension
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """What goes in and what comes out."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a format's reader found, before it is summed up."""

    records: tuple[OpRecord, ...]
    contract: Contract
    nodes: int  # nodes in the file
    delegate: str | None
    partitions: int | None
    notes: tuple[str, ...] = ()  # what could not be read or counted
    opset: int | None = None  # of an .onnx file, the default one


def words(text: str) -> frozenset[str]:
    """A set of names, written as a paragraph."""
    return frozenset(text.split())


def size_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of a packed tensor.

    >>> size_bytes((3, 3), "int4")
    5
    """
    count = 1
    for side in shape:
        count *= side
    return (count * BITS.get(dtype, 0) + 7) // 8


def is_unit_3x3(weight: tuple[int, ...], source: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Whether a convolution is 3x3, ungrouped and at stride 1: its images in and out are of about the same size.

    Args:
        weight: out channels, in channels of a group, height, width.
        source, out: shapes of the activations, whatever their layout: only elements are counted.

    >>> is_unit_3x3((8, 4, 3, 3), (1, 4, 10, 10), (1, 8, 10, 10))
    True
    >>> is_unit_3x3((8, 4, 3, 3), (1, 4, 10, 10), (1, 8, 5, 5))
    False
    """
    if len(weight) != 4 or weight[2:] != (3, 3) or not weight[0] * weight[1]:
        return False
    return 0 < prod(source) // weight[1] < 2 * prod(out) // weight[0]


def printable(text: str | bytes, limit: int = 200) -> str:
    """Text from a file nobody vouches for: one line, no control characters, at most `limit` characters.

    Protobuf gives a string that is not UTF-8 as bytes.
    """
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
