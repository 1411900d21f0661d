"""What a .tflite file is, against answers that this code did not give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from shrink.inspect.ops import OpRecord
from shrink.inspect.truth import Inspection, inspect_file

NET_MACS = {
    "stem": 16 * 16 * 16 * (3 * 3 * 3),
    "depthwise": 16 * 16 * 16 * (3 * 3),
    "pointwise": 16 * 16 * 32 * 16,
    "head": 32 * 10,
}
"""Outputs times products per output, by hand."""

NET_WEIGHTS = 16 * 27 + 16 * 9 + 32 * 16 + 10 * 32


def heavy(found: Inspection) -> list[OpRecord]:
    return [r for r in found.records if r.macs]


def answer(path: Path, x: np.ndarray) -> np.ndarray:
    runtime = Interpreter(str(path), num_threads=1)
    runtime.allocate_tensors()
    runtime.set_tensor(runtime.get_input_details()[0]["index"], x)
    runtime.invoke()
    return runtime.get_tensor(runtime.get_output_details()[0]["index"])


@pytest.mark.parametrize("variant", ["net", "net_static", "net_dynamic", "net_weights"])
def test_multiply_accumulates_are_those_counted_by_hand(tflite_files: dict[str, Path], variant: str) -> None:
    found = inspect_file(tflite_files[variant])
    assert [r.macs for r in heavy(found)] == list(NET_MACS.values())
    assert found.truth.macs == sum(NET_MACS.values())


@pytest.mark.parametrize("variant", ["net", "net_static"])
def test_a_3x3_at_stride_2_and_a_depthwise_one_are_no_3x3_at_stride_1(
    tflite_files: dict[str, Path], variant: str
) -> None:
    assert not any(r.unit_3x3 for r in inspect_file(tflite_files[variant]).records)
    assert [r.unit_3x3 for r in heavy(inspect_file(tflite_files["cut"]))] == [True, True]


@pytest.mark.parametrize("name", ["net", "attention", "cut"])
def test_multiply_accumulates_are_half_of_torchs_flops(
    tflite_files: dict[str, Path], models: dict[str, nn.Module], name: str
) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        models[name](torch.randn(1, 3, 32, 32))
    assert inspect_file(tflite_files[name]).truth.macs == counter.get_total_flops() // 2


def test_a_float_file_has_no_int8_and_no_leftovers(tflite_files: dict[str, Path]) -> None:
    truth = inspect_file(tflite_files["net"]).truth
    assert (truth.int8_mac_share, truth.dynamic_mac_share, truth.int8_weight_share, truth.leftovers) == (0, 0, 0, ())


def test_a_static_file_is_int8_throughout(tflite_files: dict[str, Path]) -> None:
    found = inspect_file(tflite_files["net_static"])
    truth = found.truth
    assert {r.compute for r in heavy(found)} == {"int8"}
    assert (truth.int8_mac_share, truth.dynamic_mac_share, truth.int8_weight_share) == (1, 0, 1)
    assert (truth.input_dtype, truth.output_dtype) == ("int8", "int8")
    assert sum(r.weight_bytes for r in found.records) == NET_WEIGHTS
    assert truth.leftovers == ()


def test_a_dynamic_file_says_that_activations_are_quantized_at_run_time(tflite_files: dict[str, Path]) -> None:
    found = inspect_file(tflite_files["net_dynamic"])
    assert {r.compute for r in heavy(found)} == {"int8-dynamic"}
    assert (found.truth.int8_mac_share, found.truth.dynamic_mac_share) == (1, 1)
    assert found.truth.input_dtype == "float32"


def test_weights_only_is_float_work_and_says_why(tflite_files: dict[str, Path]) -> None:
    truth = inspect_file(tflite_files["net_weights"]).truth
    assert (truth.int8_mac_share, truth.int8_weight_share) == (0, 1)
    worst = truth.leftovers[0]
    assert (worst.op, worst.count) == ("CONV_2D", 2)
    assert worst.reason == "weights only: they are expanded to float before use"
    assert worst.mac_share == (NET_MACS["stem"] + NET_MACS["pointwise"]) / sum(NET_MACS.values())


def test_the_runtime_agrees_on_dynamic_and_weights_only(
    tflite_files: dict[str, Path], models: dict[str, nn.Module], tmp_path: Path
) -> None:
    """The same int8 weights: weights-only answers as float arithmetic does, dynamic does not."""
    net = models["net"]
    rounded = type(net)()
    for mine, theirs in zip(rounded.state_dict().items(), net.state_dict().values(), strict=True):
        name, target = mine
        if name.endswith("bias"):
            target.copy_(theirs)
            continue
        scale = theirs.abs().flatten(1).amax(1).div(127).reshape(-1, *[1] * (theirs.dim() - 1))
        target.copy_((theirs / scale).round() * scale)
    x = np.random.default_rng(1).standard_normal((1, 3, 32, 32), np.float32)
    with torch.no_grad():
        exact = rounded.eval()(torch.from_numpy(x)).numpy()
    size = np.abs(exact).max()
    assert np.abs(answer(tflite_files["net_weights"], x) - exact).max() < 1e-5 * size
    assert np.abs(answer(tflite_files["net_dynamic"], x) - exact).max() > 1e-4 * size


def test_the_contract_says_how_to_feed_the_file(tflite_files: dict[str, Path]) -> None:
    """Quantizing by the contract's scale gives the runtime's own quantization."""
    port = inspect_file(tflite_files["net_static"]).contract.inputs[0]
    detail = Interpreter(str(tflite_files["net_static"])).get_input_details()[0]
    assert (port.scale, port.zero_point) == detail["quantization"]
    assert (port.name, port.shape, port.dtype) == (detail["name"], (1, 3, 32, 32), "int8")


def test_products_of_two_activations_are_named_as_such(tflite_files: dict[str, Path]) -> None:
    found = inspect_file(tflite_files["attention_dynamic"])
    products = 2 * 64 * 64 * 32
    reasons = {left.reason: left.mac_share for left in found.truth.leftovers if left.mac_share}
    assert set(reasons) == {"XNNPACK multiplies two activations in float only"}
    assert found.truth.int8_mac_share == pytest.approx(1 - products / found.truth.macs)
    assert {left.op for left in found.truth.leftovers} >= {"GELU", "SOFTMAX", "RSQRT"}


def test_shares_add_up(tflite_files: dict[str, Path]) -> None:
    """Every multiply-accumulate is either int8 or a leftover with a reason."""
    for name in ("net_static", "net_dynamic", "net_weights", "attention_static", "attention_dynamic"):
        truth = inspect_file(tflite_files[name]).truth
        assert truth.int8_mac_share + sum(left.mac_share for left in truth.leftovers) == pytest.approx(1)
