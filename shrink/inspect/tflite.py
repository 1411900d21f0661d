"""A .tflite file, op by op: what each computes on, and how much."""

from __future__ import annotations

from shrink.errors import RequestError
from shrink.inspect import flatbuffer, partitions
from shrink.inspect.flatbuffer import Model, Op, Tensor
from shrink.inspect.macs import TFLITE as MACS
from shrink.inspect.ops import (
    ARITHMETIC,
    EIGHT_BITS,
    WEIGHTS,
    Compute,
    Contract,
    OpRecord,
    Port,
    Reading,
    is_unit_3x3,
    size_bytes,
    words,
)

ROLES = {"TRANSPOSE_CONV": (2, 1)}
"""Positions of activations and weights among the inputs, where they are not (0, 1)."""

COMPUTE: dict[tuple[str, str], Compute] = {
    ("int8", "int8"): "int8", ("uint8", "uint8"): "int8", ("int8", "int4"): "int8", ("int8", "int2"): "int8",
    ("int16", "int8"): "int16x8", ("int16", "int16"): "int16x8", ("int16", "int4"): "int16x8",
    # float activations on 8-bit weights: XNNPACK and the runtime's own kernels both quantize each row as it comes
    ("float32", "int8"): "int8-dynamic", ("float32", "uint8"): "int8-dynamic",
    ("float32", "int4"): "int8-dynamic", ("float32", "int2"): "int8-dynamic",
    ("float32", "float32"): "float32", ("float32", "float16"): "float32", ("float16", "float16"): "fp16",
}  # fmt: skip
"""(activation dtype, weight dtype) -> arithmetic of an op that multiplies and accumulates."""

MOVERS = words(
    "BATCH_TO_SPACE_ND BITCAST BROADCAST_TO CAST CONCATENATION DEPTH_TO_SPACE DEQUANTIZE DYNAMIC_UPDATE_SLICE "
    "EMBEDDING_LOOKUP EXPAND_DIMS FILL GATHER GATHER_ND IF MIRROR_PAD PACK PAD PADV2 QUANTIZE RANGE RESHAPE "
    "RESIZE_NEAREST_NEIGHBOR REVERSE_V2 SCATTER_ND SELECT SELECT_V2 SHAPE SLICE SPACE_TO_BATCH_ND SPACE_TO_DEPTH "
    "SPLIT SPLIT_V SQUEEZE STRIDED_SLICE TILE TRANSPOSE UNPACK WHILE ZEROS_LIKE"
)
"""Ops that move, select or relabel data and compute nothing."""

UNCOUNTED = words(
    "BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN CALL_ONCE CONV_3D_TRANSPOSE IF LSTM RNN "
    "STABLEHLO_COMPOSITE STABLEHLO_CONVOLUTION STABLEHLO_DOT_GENERAL SVDF UNIDIRECTIONAL_SEQUENCE_LSTM "
    "UNIDIRECTIONAL_SEQUENCE_RNN WHILE"
)
"""Ops that multiply or run another graph, without a row in the table of counts."""


class _Reader:
    """Holds what one pass over the ops has to remember."""

    def __init__(self, model: Model, cut: partitions.Partitions | None, name: str) -> None:
        self.model, self.cut, self.name = model, cut, name
        self.expanded = {op.outputs[0]: op.inputs[0] for op in model.ops  # float copy -> the packed weights behind it
                         if op.name == "DEQUANTIZE" and model.tensors[op.inputs[0]].constant}  # fmt: skip
        self.counted: set[int] = set()

    def record(self, index: int, op: Op) -> OpRecord:
        tensors = self.model.tensors
        weight = self.weight(op)
        held = None if weight is None else tensors[self.expanded.get(weight, weight)]
        out = tensors[op.outputs[0]] if op.outputs else None
        return OpRecord(
            index=index,
            op=op.name,
            version=op.version,
            layer=out.name if out else "",
            input_dtypes=tuple(tensors[i].dtype for i in op.inputs if i >= 0),
            output_dtype=out.dtype if out else "",
            output_shape=out.shape if out else (),
            macs=self.macs(index, op),
            weight_bytes=self.weight_bytes(op, weight),
            weight_dtype=held.dtype if held else None,
            per_channel=held is not None and len(held.scales) > 1,
            compute=self.compute(op),
            delegated=None if self.cut is None else index in self.cut.delegated,
            note=self.note(op, weight),
            unit_3x3=self.unit_3x3(op),
        )

    def weight(self, op: Op) -> int | None:
        """The constant an op works on, as a tensor index."""
        spots = (ROLES.get(op.name, (0, 1))[1],) if op.name in MACS else range(len(op.inputs))
        if op.name == "DEQUANTIZE":
            return None  # its reader has it
        for i in (op.inputs[spot] for spot in spots if spot < len(op.inputs)):
            source = self.model.tensors[self.expanded.get(i, i)] if i >= 0 else None
            if source and source.constant and source.dtype in WEIGHTS and size_bytes(source.shape, "int8") > 1:
                return i
        return None

    def weight_bytes(self, op: Op, weight: int | None) -> int:
        source = None if weight is None else self.expanded.get(weight, weight)
        if source is None or source in self.counted:
            return 0
        self.counted.add(source)
        return size_bytes(self.model.tensors[source].shape, self.model.tensors[source].dtype)

    def operands(self, op: Op) -> tuple[Tensor | None, Tensor | None]:
        spots = ROLES.get(op.name, (0, 1))
        at = [op.inputs[s] if s < len(op.inputs) else -1 for s in spots]
        activation, weight = (self.model.tensors[i] if i >= 0 else None for i in at)
        return activation, weight

    def compute(self, op: Op) -> Compute:
        activation, weight = self.operands(op)
        if op.name in MOVERS or activation is None:
            return "none"
        if op.name in MACS and weight is not None:
            return COMPUTE.get((activation.dtype, weight.dtype), "float32")
        return ARITHMETIC.get(activation.dtype, "none")

    def note(self, op: Op, weight: int | None) -> str:
        if weight not in self.expanded or self.model.tensors[self.expanded[weight]].dtype not in EIGHT_BITS:
            return ""
        return "weights only: they are expanded to float before use"

    def unit_3x3(self, op: Op) -> bool:
        source, weight = self.operands(op)
        if op.name != "CONV_2D" or source is None or weight is None or len(weight.shape) != 4:
            return False
        made, height, width, read = weight.shape
        return is_unit_3x3((made, read, height, width), source.shape, self.model.tensors[op.outputs[0]].shape)

    def macs(self, index: int, op: Op) -> int:
        if op.name not in MACS:
            return 0
        shapes = [self.model.tensors[i].shape if i >= 0 else () for i in op.inputs]
        settings = {"transposed": bool(getattr(op.options, "adjX", False))}
        try:
            return MACS[op.name](shapes, self.model.tensors[op.outputs[0]].shape, settings)
        except (IndexError, ValueError) as error:
            why = f"the inputs of op {index} ({op.name}) have the shapes {shapes}"
            raise RequestError(f"{self.name} has impossible shapes", why, "fetch or export it again") from error


def _port(tensor: Tensor) -> Port:
    scale = tensor.scales[0] if tensor.scales else None
    zero_point = tensor.zero_points[0] if tensor.scales and tensor.zero_points else None
    return Port(tensor.name, tensor.shape, tensor.dtype, scale, zero_point)


def _notes(model: Model, cut: partitions.Partitions | None) -> tuple[str, ...]:
    notes = []
    if cut is None:
        custom = sorted({op.name for op in model.ops} - set(flatbuffer.OPS.values()))
        notes.append(f"needs custom ops that the runtime does not have ({', '.join(custom)}): partitions are unknown")
    uncounted = sorted({op.name for op in model.ops if op.name in UNCOUNTED})
    if uncounted:
        notes.append(f"the multiply-accumulates of {', '.join(uncounted)} are not counted")
    return tuple(notes)


def read(data: bytes, name: str) -> Reading:
    """Read a .tflite file and ask the runtime how it cuts it.

    Raises:
        RequestError: not a TFLite file, a damaged one, or one that the runtime refuses.
    """
    model = flatbuffer.load(data, name)
    cut = partitions.of(data, len(model.ops), name)
    reader = _Reader(model, cut, name)
    ports = [tuple(_port(model.tensors[i]) for i in side) for side in (model.inputs, model.outputs)]
    return Reading(
        records=tuple(reader.record(i, op) for i, op in enumerate(model.ops)),
        contract=Contract(*ports),
        nodes=len(model.ops),
        delegate=None if cut is None else partitions.DELEGATE,
        partitions=None if cut is None else cut.count,
        notes=_notes(model, cut),
    )
