"""Run-time rounding: by hand, and as ONNX Runtime's own operator does it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper
from quantize_graphs import ONNX, TFLITE, TOKENS, Block, graph_of, images, plan_of, rounded_rows, run
from torch import nn

from shrink.quantize.apply import apply
from shrink.quantize.simulate import round_dynamic, simulation

floats = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-3 else 0.0)
rows = arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=floats)


def by_hand(row: NDArray[np.float32]) -> NDArray[np.float64]:
    """256 codes from the smallest to the largest value and 0, for one row in double precision."""
    low, high = min(float(row.min()), 0.0), max(float(row.max()), 0.0)
    if low == high:
        return np.zeros_like(row, np.float64)
    step = (high - low) / 255
    zero = np.rint(-128 - low / step)
    return (np.clip(np.rint(row / step + zero), -128, 127) - zero) * step


@given(rows)
def test_rows_are_rounded_as_by_hand(x: NDArray[np.float32]) -> None:
    found = round_dynamic(torch.from_numpy(x)[None], rows=True)[0].numpy()
    for given_row, row in zip(found, x, strict=True):
        step = (max(row.max(), 0) - min(row.min(), 0)) / 255
        apart = np.abs(given_row - by_hand(row))
        assert (apart <= step * 1.001 + 1e-9).all()  # a tie may go to either side in single precision
        assert (np.abs(given_row - row) <= step * 0.51 + 1e-6).all()
        assert (given_row[row == 0] == 0).all()


@given(rows)
def test_the_whole_tensor_is_rounded_as_one_row(x: NDArray[np.float32]) -> None:
    whole = round_dynamic(torch.from_numpy(x), rows=False)
    assert torch.equal(whole.reshape(-1), round_dynamic(torch.from_numpy(x).reshape(1, -1), rows=True)[0])


def test_rows_do_not_see_each_other_and_the_whole_tensor_does() -> None:
    x = torch.stack([torch.linspace(-1, 1, 50), torch.linspace(-900, 900, 50)])[None]
    alone = round_dynamic(x[:, :1], rows=True)
    assert torch.equal(round_dynamic(x, rows=True)[:, :1], alone)
    assert float((round_dynamic(x, rows=False)[:, 0] - x[:, 0]).abs().max()) > 0.5


@pytest.fixture(scope="module")
def operator() -> ort.InferenceSession:
    """DynamicQuantizeLinear and DequantizeLinear in ONNX Runtime."""
    graph = helper.make_graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
        ],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@settings(max_examples=50)
@given(x=rows)
def test_the_whole_tensor_is_rounded_as_onnx_runtime_rounds_it(
    operator: ort.InferenceSession, x: NDArray[np.float32]
) -> None:
    (wanted,) = operator.run(None, {"x": x})
    found = round_dynamic(torch.from_numpy(x), rows=False).numpy()
    step = max(float(np.ptp(np.append(x, 0))) / 255, 1e-9)
    apart = np.abs(found - wanted) / step
    assert (apart < 1e-3).all() or ((apart < 1.001).all() and (apart > 1e-3).mean() <= 0.5)  # ties


def test_zeros_and_constants() -> None:
    for rows_ in (True, False):
        assert torch.equal(round_dynamic(torch.zeros(1, 3, 4), rows_), torch.zeros(1, 3, 4))
        for value in (2.5, -2.5):
            torch.testing.assert_close(round_dynamic(torch.full((1, 3, 4), value), rows_), torch.full((1, 3, 4), value))


@pytest.mark.parametrize("target", [TFLITE, ONNX], ids=["rows", "tensor"])
def test_a_run_time_linear_by_hand(target: object) -> None:
    layer = nn.Linear(8, 5)
    graph_module = graph_of(layer, TOKENS)
    plan = plan_of(graph_module, target, "dynamic", images(4, TOKENS))  # type: ignore[arg-type]
    image = images(1, TOKENS, seed=8)[0]
    image[0, 2] *= 30
    x = image[0].numpy()
    codes = np.stack([by_hand(row) for row in x]) if target is TFLITE else by_hand(x.reshape(-1)).reshape(x.shape)
    with torch.no_grad():
        wanted = codes @ rounded_rows(layer.weight.numpy()).T + layer.bias.double().numpy()
    found = run(simulation(apply(graph_module, plan)), image)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_run_time_convolution_takes_one_range() -> None:
    layer = nn.Conv2d(3, 5, 1)
    graph_module = graph_of(layer, (1, 3, 4, 4))
    plan = plan_of(graph_module, TFLITE, "dynamic", images(4, (1, 3, 4, 4)))
    assert plan.scheme.dynamic == {"conv2d": "x_1"}
    image = images(1, (1, 3, 4, 4), seed=8)[0]
    codes = by_hand(image.numpy().reshape(-1)).reshape(3, 16)
    with torch.no_grad():
        wanted = rounded_rows(layer.weight.numpy()).reshape(5, 3) @ codes + layer.bias.double().numpy()[:, None]
    found = run(simulation(apply(graph_module, plan)), image)
    np.testing.assert_allclose(found.reshape(5, 16), wanted, rtol=1e-4, atol=1e-4)


def test_the_simulation_leaves_the_quantized_graph_as_it_is() -> None:
    graph_module = graph_of(Block(), TOKENS, "attention")
    quantized = apply(graph_module, plan_of(graph_module, TFLITE, "dynamic", images(4, TOKENS)))
    before = quantized.code
    image = images(1, TOKENS)[0]
    simulated = simulation(quantized)
    assert quantized.code == before != simulated.code
    assert not torch.equal(run(quantized, image), run(simulated, image))
