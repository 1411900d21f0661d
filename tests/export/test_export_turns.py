"""Turns of axes in ONNX: the same numbers, by the ways that ONNX Runtime takes fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_nets import Printed
from hypothesis import given
from hypothesis import strategies as st

from shrink.export.onnx_turns import fast_turns, turned

Printer = Callable[..., Printed]


def is_fast(order: Sequence[int]) -> bool:
    """Of the ways in ONNX Runtime's transpose.cc: blocks of the last axis, or one axis taken out and put elsewhere."""
    count = len(order)
    single = [
        [*rest[:to], axis, *rest[to:]]
        for axis in range(count)
        for rest in [[other for other in range(count) if other != axis]]
        for to in range(count)
    ]
    return order[-1] == count - 1 or list(order) in single


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1)), min_size=1, max_size=6))
def test_it_is_the_same_turn_in_fast_ones(axes: list[tuple[int, float]]) -> None:
    shape = [size for size, _ in axes]
    order = sorted(range(len(axes)), key=lambda axis: axes[axis][1])
    turns = fast_turns(shape, order)
    long = [axis for axis in order if shape[axis] > 1]
    assert bool(turns) == (not is_fast(order) and long != sorted(long))
    assert all(is_fast(one) for _, one in turns)
    x = torch.arange(int(np.prod(shape))).reshape(shape)
    wanted = x.permute(order)
    if turns:
        assert torch.equal(turned(x, turns, wanted.shape), wanted)


@pytest.mark.parametrize(
    ("shape", "order", "count"),
    [
        ((1, 3, 3, 64, 196), (1, 0, 2, 4, 3), 1),  # an axis of one element is none
        ((1, 197, 3, 4, 48), (2, 0, 3, 4, 1), 1),  # places behind all channels
        ((1, 96, 7, 8, 7, 8), (0, 2, 4, 3, 5, 1), 2),  # to windows
        ((1, 7, 7, 8, 8, 96), (0, 5, 1, 3, 2, 4), 2),  # and back
        ((1, 197, 3, 3, 64), (2, 0, 3, 1, 4), 0),
        ((1, 8, 1, 5), (3, 0, 1, 2), 0),
        ((1, 1, 8, 1), (3, 2, 1, 0), 0),  # nothing moves
    ],
)
def test_it_takes_as_few_turns_as_it_can(shape: tuple[int, ...], order: tuple[int, ...], count: int) -> None:
    assert len(fast_turns(shape, order)) == count


def test_of_two_ways_the_one_with_larger_blocks_is_taken() -> None:
    """Windows of 2 x 2 are copied one after the other before 96 channels are moved, not the other way round."""
    turns = fast_turns((7, 7, 2, 2, 96), (4, 0, 2, 1, 3))
    assert turns[0] == ((7, 7, 2, 192), (0, 2, 1, 3))
    assert all(is_fast(one) for order in permutations(range(3)) for _, one in fast_turns((5, 6, 7), order))


@pytest.mark.parametrize("target", ["onnx-fp32", "onnx-int8"])
def test_onnx_runtime_turns_fast(made: Printer, tmp_path: Path, target: str) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(made("windowed", target).file, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    orders = [list(node.attribute[0].ints) for node in nodes if node.op_type == "Transpose"]
    assert len(orders) >= 3 and all(map(is_fast, orders))
    if target == "onnx-int8":  # the codes are turned
        assert [node.op_type for node in nodes].count("QuantizeLinear") == 1
