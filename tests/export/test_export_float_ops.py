"""Ops that XNNPACK has in float only stay float between codes, and do not cut the delegate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from export_nets import Printed, images, scores

from shrink.export.flatbuffer import parse
from shrink.export.float_ops import in_float
from shrink.export.ports import code_of
from shrink.inspect.truth import inspect_bytes

Printer = Callable[..., Printed]
OP, TYPE = schema.BuiltinOperator, schema.TensorType


def types(file: bytes, builtin: int) -> list[int]:
    """Of what every such op reads."""
    tree = parse(file)
    (graph,) = tree.subgraphs
    return [graph.tensors[op.inputs[0]].type for op in graph.operators if code_of(tree, op) == builtin]


def test_they_are_float_and_the_graph_is_whole(made: Printer) -> None:
    file = made("between", "tflite-int8").file
    assert types(file, OP.GELU) == types(file, OP.AVERAGE_POOL_2D) == [TYPE.FLOAT32]
    assert types(file, OP.CONV_2D) == [TYPE.INT8] * 4
    truth = inspect_bytes(file, "tflite").truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (1, ())


def test_clamps_of_slices_and_extremes_of_codes_do_not_cut_the_graph(made: Printer) -> None:
    made_ = made("clamped", "tflite-int8")
    kinds = types(made_.file, OP.MAXIMUM) + types(made_.file, OP.MINIMUM)
    assert len(kinds) >= 2 and {*kinds} == {TYPE.FLOAT32}
    truth = inspect_bytes(made_.file, "tflite").truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (1, ())
    given, wanted = made_.answers(images(20, 1)), scores(made_.simulated, images(20, 1))
    assert np.abs(given - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("target", ["tflite-fp32", "tflite-int8"])
def test_maxima_over_edges_do_not_cut_the_graph(made: Printer, target: str) -> None:
    """Three of the four windows are TensorFlow's "SAME"; copies are put around the map for the other."""
    truth = inspect_bytes(made("pooled", target).file, "tflite").truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (1, ())
    assert len(types(made("pooled", target).file, OP.MAX_POOL_2D)) == 4
    assert len(types(made("pooled", target).file, OP.CONCATENATION)) == 1 + 2


@pytest.mark.parametrize("target", ["tflite-fp32", "tflite-int8", "tflite-int8-full"])
def test_selections_do_not_cut_the_graph(made: Printer, target: str) -> None:
    truth = inspect_bytes(made("chosen", target).file, "tflite").truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (1, ())


@pytest.mark.parametrize("target", ["tflite-fp32", "tflite-int8"])
def test_what_is_repeated_is_stretched_by_a_sum(made: Printer, target: str) -> None:
    """Not of equal numbers: the converter would write one of them, and a BROADCAST_TO, which cuts the graph."""
    truth = inspect_bytes(made("asked", target).file, "tflite").truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (1, ())


def test_a_float_branch_is_joined_in_codes_and_the_graph_is_whole(made: Printer) -> None:
    """The clamp behind the concatenation, which XNNPACK has not in int8, is carried out by the codes."""
    file = made("rejoined", "tflite-int8").file
    assert types(file, OP.CONCATENATION) == [TYPE.INT8] and types(file, OP.RELU) == []
    truth = inspect_bytes(file, "tflite").truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (1, ())


def test_the_answers_are_those_of_the_simulated_graph(made: Printer) -> None:
    made_ = made("between", "tflite-int8")
    given, wanted = made_.answers(images(20, 1)), scores(made_.simulated, images(20, 1))
    assert np.abs(given - wanted).max() < 0.02 * np.abs(wanted).max()


def test_an_integer_file_keeps_them_in_codes(made: Printer) -> None:
    file = made("between", "tflite-int8-full").file
    assert types(file, OP.GELU) == types(file, OP.AVERAGE_POOL_2D) == [TYPE.INT8]


@pytest.mark.parametrize("net", ["between", "cnn"])
def test_only_they_are_changed_and_once(made: Printer, net: str) -> None:
    """Of the integer file: two conversions more for each, and nothing where there is none."""
    before = made(net, "tflite-int8-full").file
    after = in_float(before)
    tree, other = parse(before), parse(after)
    counts = [Counter(code_of(t, op) for op in t.subgraphs[0].operators) for t in (tree, other)]
    found = 2 if net == "between" else 0
    assert counts[1] - counts[0] == Counter({OP.DEQUANTIZE: found, OP.QUANTIZE: found} if found else {})
    assert in_float(after) == after
    if not found:
        assert after == before
