"""An .onnx file, node by node, as ONNX Runtime's optimizer leaves it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx

from shrink.errors import RequestError
from shrink.inspect import onnx_file, ort
from shrink.inspect.macs import ONNX as MACS
from shrink.inspect.macs import Count
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
    printable,
    size_bytes,
    words,
)

DTYPES = {code: name.lower() for name, code in onnx.TensorProto.DataType.items()} | {1: "float32", 11: "float64"}

KERNELS: dict[str, Compute] = {
    "QGemm": "int8", "QAttention": "int8", "ConvInteger": "int8", "MatMulInteger": "int8",
    "MatMulIntegerToFloat": "int8", "DynamicQuantizeMatMul": "int8-dynamic", "DynamicQuantizeLSTM": "int8-dynamic",
}  # fmt: skip
"""Arithmetic of kernels whose operand types do not say it; QLinear* is int8 as well."""

INT8_LEVEL = 4
"""`accuracy_level` of MatMulNBits from which the kernel quantizes its activations to int8."""

WEIGHT_AT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
"""Position of the weights among the inputs of an op that multiplies, where it is not 1."""

SCALE_AT = {"QLinearConv": 4, "QLinearMatMul": 4, "QGemm": 4, "DynamicQuantizeMatMul": 2, "MatMulIntegerToFloat": 3}
"""Position of the weights' scale."""

MOVERS = words(
    "Cast Concat Constant ConstantOfShape DepthToSpace DequantizeLinear DynamicQuantizeLinear Expand Flatten Gather "
    "GatherElements GatherND Identity If Loop Pad QLinearConcat QuantizeLinear Range Reshape ScatterND Shape Size "
    "Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Where"
)
"""Ops that move, select or relabel data and compute nothing."""

CARRIERS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
"""Movers that stand between weights and the op that uses them."""

FINISHERS = frozenset({"Cast", "Mul", "Add"})
"""Ops between an integer product and its floats."""

UNCOUNTED = words("DynamicQuantizeLSTM GRU GroupQueryAttention If LSTM Loop RNN Scan SparseAttention")
"""Ops that multiply or run another graph, without a row in the table of counts."""

WEIGHTS_ONLY = "weights only: they are expanded to float before use"
UNFUSED = "quantized in the file, but ONNX Runtime made no int8 kernel of it"


class _Reader:
    """Holds what one pass over the runtime's graph has to remember."""

    def __init__(self, graph: ort.Optimized, name: str) -> None:
        self.graph, self.name = graph, name
        self.constants = {t.name: (tuple(t.dims), DTYPES[t.data_type]) for t in graph.model.graph.initializer}
        self.producer = {out: node for node in graph.model.graph.node for out in node.output if out}
        self.counted: set[str] = set()

    def record(self, index: int, node: Any) -> OpRecord:
        weight = self.weight(node)
        shape, dtype = self.value(node.output[0])
        return OpRecord(
            index=index,
            op=node.op_type,
            version=None,
            layer=printable(node.name or node.output[0]),
            input_dtypes=tuple(self.value(name)[1] for name in node.input if name),
            output_dtype=dtype,
            output_shape=shape,
            macs=self.macs(node),
            weight_bytes=self.weight_bytes(weight),
            weight_dtype=None if weight is None else self.constants[weight][1],
            per_channel=weight is not None and self.per_channel(node),
            compute=self.compute(node),
            delegated=None,
            note=self.note(node),
            unit_3x3="Conv" in node.op_type and self.unit_3x3(node),
        )

    def value(self, name: str) -> tuple[tuple[int, ...], str]:
        return self.constants.get(name) or self.graph.values.get(name) or ((), "")

    def source(self, name: str) -> str | None:
        """The constant behind a tensor, also through a carrier."""
        node = self.producer.get(name)
        name = node.input[0] if node is not None and node.op_type in CARRIERS else name
        return name if name in self.constants else None

    def weight(self, node: Any) -> str | None:
        """The constant a node works on."""
        if node.op_type in CARRIERS or self.finishes(node):
            return None  # its reader has it; or it is scale or bias, which the ops of other files hold beside weights
        spot = WEIGHT_AT.get(node.op_type, 1)
        inputs = node.input[spot : spot + 1] if self.count(node) else node.input
        for source in map(self.source, inputs):
            if source and self.constants[source][1] in WEIGHTS and size_bytes(self.constants[source][0], "int8") > 1:
                return source
        return None

    def finishes(self, node: Any) -> bool:
        """Whether a node brings the sums of an integer product to floats, by their scale and the bias."""
        steps: Any = node
        while steps is not None and steps.op_type in FINISHERS:
            steps = self.producer.get(steps.input[0])
        return steps is not node and steps is not None and steps.op_type in KERNELS

    def weight_bytes(self, weight: str | None) -> int:
        if weight is None or weight in self.counted:
            return 0
        self.counted.add(weight)
        return size_bytes(*self.constants[weight])

    def per_channel(self, node: Any) -> bool:
        if node.op_type in SCALE_AT:
            scale = node.input[SCALE_AT[node.op_type]]
        else:
            expanded = self.producer.get(node.input[1]) if len(node.input) > 1 else None
            scale = expanded.input[1] if expanded is not None and len(expanded.input) > 1 else ""
        return size_bytes(self.constants.get(scale, ((), ""))[0], "int8") > 1

    def compute(self, node: Any) -> Compute:
        if node.op_type in MOVERS or not node.input:
            return "none"
        if node.op_type == "MatMulNBits":
            return "int8-dynamic" if _setting(node, "accuracy_level", 0) >= INT8_LEVEL else "float32"
        fixed: Compute | None = "int8" if node.op_type.startswith("QLinear") else KERNELS.get(node.op_type)
        if fixed == "int8" and self.is_dynamic(node.input[0]):
            return "int8-dynamic"
        return fixed or ARITHMETIC.get(self.value(node.input[0])[1], "none")

    def is_dynamic(self, name: str) -> bool:
        """Whether a tensor was quantized by ranges found at run time."""
        node = self.producer.get(name)
        while (
            node is not None
            and node.op_type in MOVERS
            and node.op_type not in ("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear")
        ):
            node = self.producer.get(node.input[0]) if node.input else None
        return node is not None and node.op_type == "DynamicQuantizeLinear"

    def note(self, node: Any) -> str:
        if self.compute(node) != "float32":
            return ""
        before = self.producer.get(node.input[0])
        if before is not None and before.op_type == "DequantizeLinear":
            return UNFUSED
        weight = self.weight(node) if self.count(node) else None
        return WEIGHTS_ONLY if weight is not None and self.constants[weight][1] in EIGHT_BITS else ""

    def count(self, node: Any) -> Count | None:
        return MACS.get(f"{node.domain}.{node.op_type}") or MACS.get(node.op_type)

    def unit_3x3(self, node: Any) -> bool:
        spot = WEIGHT_AT.get(node.op_type, 1)
        shapes = [self.value(name)[0] for name in (*node.input[spot : spot + 1], node.input[0], node.output[0])]
        return len(shapes) == 3 and is_unit_3x3(*shapes)

    def macs(self, node: Any) -> int:
        count = self.count(node)
        if count is None:
            return 0
        settings = {"transposed": _setting(node, "transA", 0), "equation": _setting(node, "equation", b"").decode()}
        shapes, out = [self.value(name)[0] for name in node.input], self.value(node.output[0])[0]
        try:
            found = count(shapes, out, settings)
        except (IndexError, ValueError):
            found = -1
        if found < 0 or any(side < 0 for side in out):
            layer = printable(node.name or node.output[0], 60)
            why = f"the inputs of {node.op_type} '{layer}' have the shapes {shapes}; -1 is not known before the run"
            raise RequestError(f"the work of {self.name} cannot be counted", why, "export it with fixed shapes")
        return found


def _setting(node: Any, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _port(model: Any, port: Port) -> Port:
    if port.dtype not in EIGHT_BITS:
        return port
    scale, zero_point = onnx_file.quantization(model, port.name)
    return replace(port, scale=scale, zero_point=zero_point)


def read(data: bytes, name: str) -> Reading:
    """Read an .onnx file and ask ONNX Runtime what it makes of it.

    Raises:
        RequestError: not an ONNX file, a damaged one, one that needs other files or libraries, one
            without fixed shapes, or one that the runtime refuses.
    """
    model = onnx_file.load(data, name)
    free = onnx_file.fix_batch(model, name)
    graph = ort.load(model.SerializeToString(), len(model.graph.output), free, name)
    reader = _Reader(graph, name)
    uncounted = sorted({n.op_type for n in graph.model.graph.node if n.op_type in UNCOUNTED})
    return Reading(
        records=tuple(reader.record(i, node) for i, node in enumerate(graph.model.graph.node)),
        contract=Contract(*(tuple(_port(model, p) for p in side) for side in (graph.inputs, graph.outputs))),
        nodes=len(model.graph.node),
        delegate=None,
        partitions=None,
        notes=(f"the multiply-accumulates of {', '.join(uncounted)} are not counted",) if uncounted else (),
        opset=next((int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx")), None),
    )
