"""The label, the old runtime and the text, from records made by hand."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from device_runner.manifest import TruthLabel
from shrink.inspect import macs, render
from shrink.inspect.old_runtime import NEWEST, min_runtime
from shrink.inspect.ops import Contract, OpRecord, Port, Reading, printable, size_bytes
from shrink.inspect.reasons import left_out
from shrink.inspect.truth import Inspection, label

FLOAT = OpRecord(0, "CONV_2D", 1, "stem", ("float32", "float32"), "float32", (1, 4, 4, 8), 300, 864, "float32", False,
                 "float32", True)  # fmt: skip
INT8 = replace(FLOAT, index=1, layer="body", input_dtypes=("int8", "int8"), macs=600, weight_bytes=200,
               weight_dtype="int8", per_channel=True, compute="int8")  # fmt: skip
DYNAMIC = replace(INT8, index=2, op="FULLY_CONNECTED", macs=100, weight_bytes=16, compute="int8-dynamic",
                  delegated=False)  # fmt: skip
SOFTMAX = replace(FLOAT, index=3, op="SOFTMAX", macs=0, weight_bytes=0, weight_dtype=None)
QUANTIZE = replace(SOFTMAX, index=4, op="QUANTIZE", compute="none")
CONTRACT = Contract((Port("x", (1, 4, 4, 3), "uint8", 0.5, 128),), (Port("y", (1, 8), "float32"),))


def reading(*records: OpRecord) -> Reading:
    return Reading(records, CONTRACT, nodes=len(records), delegate="XNNPACK", partitions=2)


def test_shares_are_of_all_work_and_all_weight_bytes() -> None:
    truth = label(reading(FLOAT, INT8, DYNAMIC, SOFTMAX, QUANTIZE), "tflite")
    assert (truth.macs, truth.ops) == (1000, 5)
    assert (truth.int8_mac_share, truth.dynamic_mac_share) == (0.7, 0.1)
    assert truth.int8_weight_share == 216 / 1080
    assert (truth.delegate_partitions, truth.undelegated_ops) == (2, ("FULLY_CONNECTED",))
    assert (truth.input_dtype, truth.output_dtype) == ("uint8", "float32")


def test_leftovers_are_float_work_largest_first_and_not_the_borders() -> None:
    found = label(reading(SOFTMAX, FLOAT, INT8, QUANTIZE), "tflite").leftovers
    assert [(f.op, f.count, f.mac_share, f.reason) for f in found] == [
        ("CONV_2D", 1, 300 / 900, "left in float by the exporter"),
        ("SOFTMAX", 1, 0, "XNNPACK runs it in float only"),
    ]


def test_a_float_file_has_no_leftovers_because_nobody_asked_for_int8() -> None:
    assert label(reading(FLOAT, SOFTMAX), "tflite").leftovers == ()


def test_a_file_without_work_has_shares_of_zero() -> None:
    truth = label(reading(QUANTIZE), "tflite")
    assert (truth.int8_mac_share, truth.int8_weight_share) == (0, 0)


def test_a_label_survives_the_manifest() -> None:
    truth = label(reading(FLOAT, INT8, DYNAMIC, SOFTMAX), "tflite")
    assert msgspec.json.decode(msgspec.json.encode(truth), type=TruthLabel) == truth


@pytest.mark.parametrize(
    ("record", "stop"),
    [
        (replace(INT8, version=8), "CONV_2D is version 8: it has 7"),
        (replace(FLOAT, op="STABLEHLO_COMPOSITE"), "STABLEHLO_COMPOSITE: it has no such op"),
        (DYNAMIC, "FULLY_CONNECTED: float activations on per-channel int8 weights: it answers wrongly"),
        (replace(DYNAMIC, op="TRANSPOSE_CONV"), "TRANSPOSE_CONV: float activations on int8 weights: it refuses them"),
        (replace(INT8, weight_dtype="int4"), "CONV_2D: weights of 4 bits or fewer: it refuses or misreads them"),
        (replace(INT8, op="FULLY_CONNECTED", compute="int16x8", output_shape=(1, 5, 8)),
         "FULLY_CONNECTED: int16 activations with more than one row: it answers wrongly"),
    ],
)  # fmt: skip
def test_what_stops_the_old_runtime(record: OpRecord, stop: str) -> None:
    found = min_runtime([INT8, record, record])
    assert (found.runs, found.stops) == (False, (stop,))
    assert str(found) == f"does not run on tflite-runtime 2.14: {stop}"


def test_what_runs_on_the_old_runtime() -> None:
    fine = [FLOAT, INT8, replace(DYNAMIC, per_channel=False), SOFTMAX, replace(INT8, version=NEWEST["CONV_2D"])]
    assert str(min_runtime(fine)) == "runs on tflite-runtime 2.14"


def test_the_text_begins_with_the_label_and_groups_ops() -> None:
    records = (FLOAT, INT8, replace(INT8, index=9), DYNAMIC, SOFTMAX)
    truth = label(reading(*records), "tflite")
    found = Inspection("tflite", 12345, truth, CONTRACT, records, min_runtime(records), ("a note",))
    lines = render.text(found).splitlines()
    assert lines[0] == "int8 work      81.2 % of 1,600 multiply-accumulates"
    assert "partitions     2 (XNNPACK), 93.8 % of multiply-accumulates" in lines
    assert lines[lines.index("not delegated    count   macs  because") + 1].startswith(
        "FULLY_CONNECTED      1  6.2 %  XNNPACK"
    )
    assert lines[lines.index("old boards     does not run on tflite-runtime 2.14:") + 1].startswith(" " * 17)
    assert "input          x  [1, 4, 4, 3]  uint8  real = (code - 128) * 0.5" in lines
    assert any(line.split() == ["CONV_2D", "int8", "int8", "yes", "2", "75.0", "%"] for line in lines)
    assert "note           a note" in lines


def test_a_column_that_says_nothing_is_left_out() -> None:
    records = tuple(replace(record, delegated=None) for record in (FLOAT, INT8))
    found = Inspection("onnx", 1, label(reading(*records), "onnx"), CONTRACT, records, None, (), 21)
    shown = render.text(found)
    assert "delegated" not in shown.split("\n\n")[-1] and "op set         21" in shown.splitlines()


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (replace(SOFTMAX, compute="int8"), "it is int8, and XNNPACK runs it in float only"),
        (replace(INT8, op="BATCH_MATMUL", weight_dtype=None), "it is int8, and XNNPACK runs it in float only"),
        (replace(INT8, op="FULLY_CONNECTED"), "XNNPACK did not take it with these types and settings"),
        (SOFTMAX, "XNNPACK did not take it with these types and settings"),
    ],
)
def test_why_the_delegate_left_an_op_out(record: OpRecord, why: str) -> None:
    assert left_out(record) == why


def test_text_of_a_file_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc‮d") == "a [2Jb c d"
    assert len(printable("x" * 1000)) == 200


def test_packed_sizes() -> None:
    assert [size_bytes((3, 3), dtype) for dtype in ("float32", "float16", "int8", "int4", "int2")] == [36, 18, 9, 5, 3]


@pytest.mark.parametrize(
    ("op", "inputs", "out", "settings", "expected"),
    [
        ("CONV_2D", [(1, 8, 8, 4), (6, 3, 3, 4)], (1, 6, 6, 6), {}, 6 * 6 * 6 * 36),
        ("CONV_2D", [(1, 8, 8, 4), (6, 3, 3, 2)], (1, 6, 6, 6), {}, 6 * 6 * 6 * 18),  # two groups
        ("DEPTHWISE_CONV_2D", [(1, 8, 8, 4), (1, 3, 3, 4)], (1, 6, 6, 4), {}, 6 * 6 * 4 * 9),
        ("TRANSPOSE_CONV", [(4,), (6, 2, 2, 4), (1, 8, 8, 4)], (1, 16, 16, 6), {}, 8 * 8 * 4 * 2 * 2 * 6),
        ("FULLY_CONNECTED", [(5, 16), (7, 16)], (5, 7), {}, 5 * 7 * 16),
        ("BATCH_MATMUL", [(2, 5, 16), (2, 16, 7)], (2, 5, 7), {}, 2 * 5 * 7 * 16),
        ("BATCH_MATMUL", [(2, 16, 5), (2, 16, 7)], (2, 5, 7), {"transposed": True}, 2 * 5 * 7 * 16),
    ],
)
def test_tflite_counts(
    op: str, inputs: list[macs.Shape], out: macs.Shape, settings: macs.Settings, expected: int
) -> None:
    assert macs.TFLITE[op](inputs, out, settings) == expected


@pytest.mark.parametrize(
    ("op", "inputs", "out", "settings", "expected"),
    [
        ("ConvTranspose", [(1, 4, 8, 8), (4, 6, 2, 2)], (1, 6, 16, 16), {}, 8 * 8 * 4 * 2 * 2 * 6),
        ("Gemm", [(16, 5), (16, 7)], (5, 7), {"transposed": 1}, 5 * 7 * 16),
        ("Einsum", [(2, 5, 16), (2, 7, 16)], (2, 5, 7), {"equation": "bik,bjk->bij"}, 2 * 5 * 7 * 16),
        ("Attention", [(1, 3, 5, 8), (1, 3, 9, 8), (1, 3, 9, 8)], (1, 3, 5, 8), {}, 2 * 3 * 5 * 9 * 8),
        ("QAttention", [(1, 5, 8), (8, 24)], (1, 5, 8), {}, 5 * 8 * 24 + 2 * 5 * 5 * 8),
    ],
)
def test_onnx_counts(
    op: str, inputs: list[macs.Shape], out: macs.Shape, settings: macs.Settings, expected: int
) -> None:
    assert macs.ONNX[op](inputs, out, settings) == expected
