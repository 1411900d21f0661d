"""Sums of codes come out alike in every runtime: asked of ONNX Runtime itself, with every pair of codes.

Of XNNPACK, whole files are asked: `tests/export/test_export_answers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from quantize_graphs import ONNX, graph_of, images, plan_of, scheme_of
from torch import Tensor, nn

from shrink.quantize.codes import HIGH, LOW, Affine
from shrink.quantize.sums import CODES, NARROWEST, alike, in_xnnpack, on_arm
from shrink.quantize.ties import apart_from_ties


def summed(a: Affine, b: Affine, total: Affine, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Codes of the sums as this machine's kernel finds them; `y` of one place is a constant."""
    scalars = {"a": a, "b": b, "c": total}
    given = {f"{name}_scale": np.array(codes.scale, np.float32) for name, codes in scalars.items()}
    given |= {f"{name}_zero": np.array(codes.zero_point - LOW, np.uint8) for name, codes in scalars.items()}
    fed = {"a": (x - LOW).astype(np.uint8), "b": (y - LOW).astype(np.uint8)}
    if len(y) == 1:
        given["b"] = fed.pop("b")
    names = [f"{name}{part}" for name in "abc" for part in ("", "_scale", "_zero")]
    node = helper.make_node("QLinearAdd", [name for name in names if name != "c"], ["c"], domain="com.microsoft")
    shapes = [helper.make_tensor_value_info(name, TensorProto.UINT8, value.shape) for name, value in fed.items()]
    out = helper.make_tensor_value_info("c", TensorProto.UINT8, None)
    graph = helper.make_graph([node], "sum", shapes, [out], [numpy_helper.from_array(v, k) for k, v in given.items()])
    versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[np.int64] = session.run(None, fed)[0].astype(np.int64) + LOW
    return found


def codes(seed: int) -> tuple[Affine, Affine, Affine]:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.01, 0.3, 2)
    zeros = rng.integers(LOW, HIGH + 1, 3).tolist()
    return Affine(a, zeros[0]), Affine(b, zeros[1]), Affine((a + b) * rng.uniform(0.3, 1.0), zeros[2])


@pytest.mark.parametrize("seed", range(12))
def test_float_and_integer_factors_agree_on_every_pair_of_codes(seed: int) -> None:
    a, b, total = codes(seed)
    moved = replace(total, scale=alike(a, b, total))
    assert NARROWEST <= moved.scale / total.scale <= 1
    x, y = (grid.ravel() for grid in np.meshgrid(CODES, CODES))
    here = summed(a, b, moved, x, y)
    assert np.array_equal(here, on_arm(x, y, a, b, moved))
    assert np.array_equal(here, in_xnnpack(x, y, a, b, moved))


@pytest.mark.parametrize("kernel", [on_arm, in_xnnpack])
def test_without_moving_some_pairs_are_apart(kernel: Callable[..., NDArray[np.int64]]) -> None:
    x, y = (grid.ravel() for grid in np.meshgrid(CODES, CODES))
    apart = 0
    for seed in range(12):
        a, b, total = codes(seed)
        apart += np.count_nonzero(summed(a, b, total, x, y) != kernel(x, y, a, b, total))
    assert apart > 0


def three_more() -> tuple[Affine, Affine, Affine]:
    """x + 3 before a clamp to 0..6, where 3 is 127.5 codes."""
    return Affine(9 / 255, -14), Affine(3 / 255, LOW), Affine(6 / 255, LOW)


def test_zero_before_a_hard_swish_is_a_tie_and_then_none() -> None:
    x, three, total = three_more()
    assert nearest_tie(x, three, total) < Fraction(1, 10**5)
    moved = replace(total, scale=alike(x, three, total, constant=HIGH))
    assert nearest_tie(x, three, moved) > Fraction(2, 10**5)
    every = np.array([HIGH])
    here = summed(x, three, moved, CODES, every)
    assert np.array_equal(here, on_arm(CODES, every, x, three, moved))
    assert np.array_equal(here, in_xnnpack(CODES, every, x, three, moved))


def nearest_tie(a: Affine, b: Affine, total: Affine) -> Fraction:
    """How near the sum of any code and the constant comes to a half, in codes; with fractions, which round nothing."""
    left, right, whole = (Fraction(float(np.float32(one.scale))) for one in (a, b, total))
    sums = [(int(code - a.zero_point) * left + (HIGH - b.zero_point) * right) / whole for code in CODES]
    return min(abs(one % 1 - Fraction(1, 2)) for one in sums if 0 <= one <= HIGH - LOW)


class Sums(nn.Module):
    """A hard-swish, and a sum with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.act = nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(20 * self.first(x))  # beyond the clamp at both ends: its range is 0..6
        found: Tensor = y + self.second(y)
        return found


def test_only_sums_move() -> None:
    graph = graph_of(Sums(), (1, 4, 8, 8), "hard_swish", "numbers")
    scheme, plan = scheme_of(graph, ONNX, "static"), plan_of(graph, ONNX, "static", images(4))
    found = apart_from_ties(graph, plan.codes, scheme)
    moved = {name for name in found if found[name] != plan.codes[name]}
    clamp = next(node.name for node in graph.graph.nodes if "hardtanh" in str(node.target))
    sums = {node.name for node in graph.graph.nodes if "add" in str(node.target)} | {clamp}
    assert clamp in moved and moved <= sums  # the sum before the clamp has the clamp's codes
