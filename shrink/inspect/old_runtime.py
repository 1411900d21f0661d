"""Whether a .tflite file runs on tflite-runtime 2.14, the last runtime for 32-bit boards and old Pythons.

An op's version in the file is what its writer claims. Writers that quantize in place do not raise it, so the old
runtime loads such files and answers wrongly; TRAPS has what was found by running such files on both runtimes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

from shrink.inspect.ops import EIGHT_BITS, OpRecord

RUNTIME = "tflite-runtime 2.14"

# Asked of the 2.14.0 wheel: one file per op and version 1..15, loaded or refused.
_NEWEST = """
    ABS:5 ADD:5 ADD_N:1 ARG_MAX:3 ARG_MIN:3 ASSIGN_VARIABLE:1 ATAN2:1 AVERAGE_POOL_2D:3 BATCH_MATMUL:4
    BATCH_TO_SPACE_ND:4 BIDIRECTIONAL_SEQUENCE_LSTM:3 BIDIRECTIONAL_SEQUENCE_RNN:3 BITCAST:1 BITWISE_XOR:1
    BROADCAST_ARGS:1 BROADCAST_TO:3 BUCKETIZE:1 CALL_ONCE:1 CAST:5 CEIL:1 COMPLEX_ABS:1 CONCATENATION:4 CONV_2D:7
    CONV_3D:1 CONV_3D_TRANSPOSE:1 COS:1 CUMSUM:1 DENSIFY:1 DEPTHWISE_CONV_2D:7 DEPTH_TO_SPACE:2 DEQUANTIZE:5 DIV:2
    DYNAMIC_UPDATE_SLICE:1 ELU:1 EMBEDDING_LOOKUP:3 EMBEDDING_LOOKUP_SPARSE:1 EQUAL:4 EXP:2 EXPAND_DIMS:1 FAKE_QUANT:2
    FILL:4 FLOOR:1 FLOOR_DIV:3 FLOOR_MOD:2 FULLY_CONNECTED:10 GATHER:6 GATHER_ND:4 GELU:2 GREATER:2 GREATER_EQUAL:3
    HARD_SWISH:1 HASHTABLE:1 HASHTABLE_FIND:1 HASHTABLE_IMPORT:1 HASHTABLE_LOOKUP:1 HASHTABLE_SIZE:1 IF:1 IMAG:1
    L2_NORMALIZATION:2 L2_POOL_2D:1 LEAKY_RELU:2 LESS:3 LESS_EQUAL:2 LOCAL_RESPONSE_NORMALIZATION:1 LOG:1
    LOGICAL_AND:1 LOGICAL_NOT:1 LOGICAL_OR:1 LOGISTIC:3 LOG_SOFTMAX:2 LSH_PROJECTION:1 LSTM:4 MATRIX_DIAG:1
    MATRIX_SET_DIAG:1 MAXIMUM:4 MAX_POOL_2D:3 MEAN:3 MINIMUM:4 MIRROR_PAD:3 MUL:7 MULTINOMIAL:1 NEG:1
    NON_MAX_SUPPRESSION_V4:1 NON_MAX_SUPPRESSION_V5:1 NOT_EQUAL:3 ONE_HOT:1 PACK:4 PAD:4 PADV2:4 POW:1 PRELU:1
    QUANTIZE:3 RANDOM_STANDARD_NORMAL:1 RANDOM_UNIFORM:1 RANGE:2 RANK:1 READ_VARIABLE:1 REAL:1 REDUCE_ALL:1
    REDUCE_ANY:1 REDUCE_MAX:3 REDUCE_MIN:3 REDUCE_PROD:2 RELU:3 RELU6:3 RELU_0_TO_1:1 RELU_N1_TO_1:1 RESHAPE:1
    RESIZE_BILINEAR:4 RESIZE_NEAREST_NEIGHBOR:4 REVERSE_SEQUENCE:1 REVERSE_V2:3 RFFT2D:1 RIGHT_SHIFT:1 RNN:3 ROUND:1
    RSQRT:2 SCATTER_ND:1 SEGMENT_SUM:1 SELECT:4 SELECT_V2:2 SHAPE:1 SIGN:2 SIN:1 SKIP_GRAM:1 SLICE:6 SOFTMAX:3
    SPACE_TO_BATCH_ND:4 SPACE_TO_DEPTH:2 SPARSE_TO_DENSE:3 SPLIT:4 SPLIT_V:2 SQRT:1 SQUARE:1 SQUARED_DIFFERENCE:2
    SQUEEZE:2 STRIDED_SLICE:8 SUB:5 SUM:2 SVDF:4 TANH:3 TILE:3 TOPK_V2:3 TRANSPOSE:6 TRANSPOSE_CONV:4
    UNIDIRECTIONAL_SEQUENCE_LSTM:4 UNIDIRECTIONAL_SEQUENCE_RNN:3 UNIQUE:1 UNPACK:4 UNSORTED_SEGMENT_MAX:1
    UNSORTED_SEGMENT_MIN:1 UNSORTED_SEGMENT_PROD:1 UNSORTED_SEGMENT_SUM:1 VAR_HANDLE:1 WHERE:2 WHILE:1 ZEROS_LIKE:1
"""
NEWEST: dict[str, int] = {op: int(version) for op, version in (row.split(":") for row in _NEWEST.split())}
"""op -> the newest version that the runtime has."""


@dataclass(frozen=True, slots=True)
class Trap:
    """A kind of op that the old runtime accepts by its version and cannot run."""

    applies: Callable[[OpRecord], bool]
    words: str


TRAPS = (
    Trap(lambda r: r.op == "FULLY_CONNECTED" and r.compute == "int8-dynamic" and r.per_channel,
         "float activations on per-channel int8 weights: it answers wrongly"),
    Trap(lambda r: r.op == "FULLY_CONNECTED" and r.compute == "int16x8" and prod(r.output_shape[:-1]) > 1,
         "int16 activations with more than one row: it answers wrongly"),
    Trap(lambda r: r.op == "TRANSPOSE_CONV" and r.compute == "int8-dynamic",
         "float activations on int8 weights: it refuses them"),
    Trap(lambda r: r.weight_dtype in EIGHT_BITS - {"int8", "uint8"},
         "weights of 4 bits or fewer: it refuses or misreads them"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compatibility:
    """Whether the old runtime runs a file, by op versions and known traps; its kernels were not tried."""

    runtime: str
    runs: bool
    stops: tuple[str, ...]  # what stops it, each once

    def __str__(self) -> str:
        """One line.

        >>> str(Compatibility(RUNTIME, True, ()))
        'runs on tflite-runtime 2.14'
        """
        return f"runs on {self.runtime}" if self.runs else f"does not run on {self.runtime}: {'; '.join(self.stops)}"


def _stops(record: OpRecord) -> Iterable[str]:
    newest = NEWEST.get(record.op)
    if newest is None:
        yield f"{record.op}: it has no such op"
    elif record.version is not None and record.version > newest:
        yield f"{record.op} is version {record.version}: it has {newest}"
    for trap in TRAPS:
        if trap.applies(record):
            yield f"{record.op}: {trap.words}"


def min_runtime(records: Iterable[OpRecord]) -> Compatibility:
    """Which ops of a .tflite file, if any, keep it from tflite-runtime 2.14."""
    stops = tuple(dict.fromkeys(stop for record in records for stop in _stops(record)))
    return Compatibility(RUNTIME, not stops, stops)
