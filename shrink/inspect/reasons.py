"""Why an op of an int8 file computes in float: what the runtimes have no int8 kernel for."""

from __future__ import annotations

from shrink.inspect.ops import FLOAT, Format, OpRecord, words

EXPORTER = "left in float by the exporter"

NO_INT8: dict[Format, tuple[str, frozenset[str]]] = {
    # each tried alone with int8 operands on ai-edge-litert 2.3: the delegate does not take it
    "tflite": ("XNNPACK runs it in float only", words(
        "AVERAGE_POOL_2D DIV EXP GELU HARD_SWISH LOG MAXIMUM MINIMUM PRELU RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RSQRT "
        "SIN SOFTMAX SQRT SQUARED_DIFFERENCE"
    )),
    "onnx": ("ONNX Runtime has no int8 kernel for it", words(
        "BatchNormalization BiasGelu Div Erf Exp FastGelu Gelu GroupNormalization HardSigmoid HardSwish "
        "InstanceNormalization LayerNormalization Log Pow QuickGelu Reciprocal RMSNormalization "
        "SimplifiedLayerNormalization SkipLayerNormalization Sqrt"
    )),
}  # fmt: skip
"""format -> (reason, ops it holds for)."""

TWO_ACTIVATIONS: dict[tuple[Format, str], str] = dict.fromkeys(
    (("tflite", "BATCH_MATMUL"), ("tflite", "FULLY_CONNECTED")), "XNNPACK multiplies two activations in float only"
)
"""Products without weights, which have a reason of their own."""


def reason(record: OpRecord, fmt: Format) -> str:
    """Why this op computes in float."""
    if record.macs:
        product = "" if record.weight_dtype else TWO_ACTIVATIONS.get((fmt, record.op), "")
        return record.note or product or EXPORTER
    why, ops = NO_INT8[fmt]
    return why if record.op in ops else record.note or EXPORTER


def left_out(record: OpRecord) -> str:
    """Why XNNPACK did not take this op of a .tflite file, as far as its kind and type tell."""
    _, ops = NO_INT8["tflite"]
    float_only = record.op in ops or (("tflite", record.op) in TWO_ACTIVATIONS and not record.weight_dtype)
    if float_only and record.compute not in FLOAT:
        return f"it is {record.compute}, and XNNPACK runs it in float only"
    return "XNNPACK did not take it with these types and settings"
