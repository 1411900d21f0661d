"""Files answer on their real runtime what the graph they were printed from answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from export_nets import Printed, images, nearest_tie, scores

from shrink.inspect.truth import inspect_bytes

Printer = Callable[..., Printed]

# (net, target, border): allowed difference from the simulation, as a share of the largest score: what float32 leaves.
# Softmax, exp and log are computed in other ways, so that a code behind them may differ by one; so may one behind a
# leaky ReLU or a change of scales, for which XNNPACK multiplies by 256ths.
EXACT, CODE = 1e-5, 1e-2
# Processors add in orders of their own, so that a float sum this close to the middle between two codes, in steps, may
# become either. One image in 24 may hold one.
TIE = 1e-4
QUANTIZED = {
    ("cnn", "tflite-int8", None): EXACT,
    ("cnn", "onnx-int8", "static"): EXACT,
    ("cnn", "onnx-int8", None): EXACT,
    ("vit", "tflite-int8", None): EXACT,
    ("vit", "onnx-int8", "static"): EXACT,
    ("vit", "onnx-int8", None): EXACT,
    ("classic", "onnx-int8", None): EXACT,
    ("asked", "tflite-int8", None): 1e-3,
    ("asked", "onnx-int8", None): CODE,
    ("chosen", "tflite-int8", None): EXACT,
    ("chosen", "onnx-int8", None): EXACT,
    ("pooled", "tflite-int8", None): EXACT,
    ("pooled", "onnx-int8", None): EXACT,
    ("products", "tflite-int8", None): 1e-3,
    ("rejoined", "tflite-int8", None): EXACT,
    ("rejoined", "onnx-int8", None): EXACT,
    ("dense", "tflite-int8", None): EXACT,
    ("dense", "onnx-int8", None): EXACT,
    ("dual", "tflite-int8", None): CODE,
    ("dual", "onnx-int8", None): EXACT,
    ("gated", "tflite-int8", None): EXACT,
    ("gated", "onnx-int8", None): EXACT,
    ("shuffled", "tflite-int8", None): EXACT,
    ("shuffled", "onnx-int8", None): EXACT,
    ("curves", "tflite-int8", None): CODE,
    ("curves", "onnx-int8", None): EXACT,
    ("places", "tflite-int8", None): 2e-2,
    ("places", "onnx-int8", None): EXACT,
    ("resized", "tflite-int8", None): CODE,
    ("resized", "onnx-int8", None): CODE,
    ("joined", "tflite-int8", None): EXACT,
    ("paired", "tflite-int8", None): CODE,
    ("paired", "onnx-int8", None): EXACT,
    ("leaky", "tflite-int8", None): CODE,
    ("leaky", "onnx-int8", None): EXACT,
    ("selective", "tflite-int8", None): EXACT,
    ("selective", "onnx-int8", None): EXACT,
    ("sided", "tflite-int8", None): EXACT,
    ("sided", "onnx-int8", None): EXACT,
    ("states", "tflite-int8", None): EXACT,
    ("states", "onnx-int8", None): EXACT,
    ("thin", "tflite-int8", None): EXACT,
    ("thin", "onnx-int8", None): EXACT,
    ("tokens", "tflite-int8", None): CODE,
    ("windowed", "tflite-int8", None): EXACT,
    ("windowed", "onnx-int8", None): EXACT,
    ("wide", "tflite-int8", None): EXACT,
    ("wide", "onnx-int8", None): EXACT,
}
IN_FLOAT = (
    "cnn", "vit", "misread", "products", "gated", "tokens", "thin", "curves", "places", "resized", "sided", "states",
    "pooled", "chosen", "asked", "windowed", "selective", "leaky", "joined", "paired", "dual",
)  # fmt: skip
FLOAT = [(net, form) for net in IN_FLOAT for form in ("tflite-fp32", "onnx-fp32")]


@pytest.mark.parametrize(("net", "target"), FLOAT)
def test_a_float_file_answers_what_the_model_answers(made: Printer, net: str, target: str) -> None:
    item = made(net, target)
    shown = images(8, seed=2)
    wanted = scores(item.module, shown)
    assert np.abs(item.answers(shown) - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("key", QUANTIZED, ids=lambda key: "-".join(filter(None, key)))
def test_a_quantized_file_answers_what_its_simulation_answers(made: Printer, key: tuple[str, str, str | None]) -> None:
    item = made(*key)
    shown = images(24, seed=2)
    wanted, given = scores(item.simulated, shown), item.answers(shown)
    close = QUANTIZED[key] * np.abs(wanted).max()
    apart = np.abs(given - wanted).max(1)
    far = np.flatnonzero(apart > close)
    assert apart.max() <= max(close, CODE * np.abs(wanted).max())
    assert len(far) <= 1 and all(nearest_tie(item.simulated, shown[image]) < TIE for image in far)
    top = np.sort(wanted, 1)
    decided = top[:, -1] - top[:, -2] > 2 * close
    assert decided.sum() >= 12  # else this says nothing
    assert (given.argmax(1) == wanted.argmax(1))[decided].all()


@pytest.mark.parametrize("target", ["tflite-int8", "tflite-int8-full"])
def test_a_softmax_over_places_leaves_no_maximum_with_infinity(made: Printer, target: str) -> None:
    """The converter writes one over another axis than the last with such a maximum, and gave it codes."""
    ops = {record.op for record in inspect_bytes(made("tokens", target).file, "tflite").records}
    assert "SOFTMAX" in ops and not {"MAXIMUM", "REDUCE_MAX", "EXP"} & ops


def test_scores_that_are_codes_differ_by_two_codes_at_most(made: Printer) -> None:
    """The classic head ends in codes; it also has a pool before a ReLU, and channels that are nothing but bias."""
    item = made("classic", "tflite-int8")
    assert item.plan is not None
    codes = item.plan.codes[item.plan.scheme.values[-1]]
    shown = images(24, seed=2)
    apart = np.abs(item.answers(shown) - scores(item.simulated, shown)) / codes.scale
    assert apart.max() <= 2.001
    assert (apart < 0.001).mean() > 0.5


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_a_shut_channel_keeps_its_bias(made: Printer, target: str) -> None:
    """Its bias of 40 decides the scores; cut to 32 bits at the scale of its weights, it would be gone."""
    item = made("classic", target)
    shown = images(8, seed=2)
    wanted = scores(item.module, shown)
    assert np.abs(item.answers(shown) - wanted).max() <= 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize("net", ["cnn", "vit"])
@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_quantizing_costs_little(made: Printer, net: str, target: str) -> None:
    item = made(net, target)
    shown = images(24, seed=2)
    wanted = scores(item.module, shown)
    assert np.abs(item.answers(shown) - wanted).max() <= 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("net", ["cnn", "vit", "classic", "products"])
def test_an_int8_tflite_file_is_one_partition_with_all_weights_in_int8(made: Printer, net: str) -> None:
    truth = inspect_bytes(made(net, "tflite-int8").file, "tflite", "file").truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (1, ())
    products = sum(left.mac_share for left in truth.leftovers)  # of two activations
    assert truth.int8_mac_share == pytest.approx(1 - products)
    assert (products > 0) == (net in ("vit", "products"))


@pytest.mark.parametrize("left", ["conv2d", "conv2d_1", "conv2d_2"])
def test_a_layer_left_in_float_is_float_in_the_file_and_it_alone(made: Printer, left: str) -> None:
    """The TFLite converter would pack its weights and quantize its input at run time if it were let to."""
    item = made("cnn", "tflite-int8", None, (left,))
    found = inspect_bytes(item.file, "tflite")
    layers = [record for record in found.records if record.macs and record.weight_dtype]
    assert [record.weight_dtype for record in layers if record.compute == "float32"] == ["float32"]
    assert len(layers) == 6 and found.truth.delegate_partitions == 1
    shown = images(24, seed=2)
    wanted = scores(item.simulated, shown)
    assert np.abs(item.answers(shown) - wanted).max() <= 0.03 * np.abs(wanted).max()


def test_onnx_runtime_quantizes_a_float_convolution_between_codes(made: Printer) -> None:
    """Which is why its target does not offer to leave one in float."""
    found = inspect_bytes(made("cnn", "onnx-int8", None, ("conv2d_1",)).file, "onnx")
    assert {record.compute for record in found.records if record.op.endswith("Conv")} == {"int8"}
    assert made("cnn", "onnx-int8").target.float_amid == ("linear.default",)


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_between_the_image_and_the_head_codes_change_no_scale_to_be_shuffled(made: Printer, target: str) -> None:
    """One rounding at the image, one return to float for the head: what a split gives is read as the codes it is."""
    item = made("shuffled", target)
    ops = [record.op for record in inspect_bytes(item.file, item.target.format).records]
    conversions = [op for op in ops if op.lower() in ("quantize", "dequantize", "quantizelinear", "dequantizelinear")]
    assert len(conversions) <= 2 and any("concat" in op.lower() for op in ops)


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_clamped_channels_beside_others_cost_no_convolution_its_integers(made: Printer, target: str) -> None:
    """ONNX Runtime fuses a ReLU into a convolution of codes only where the codes behind it begin at 0."""
    records = inspect_bytes(made("dense", target).file, made("dense", target).target.format).records
    layers = [record for record in records if record.macs]
    assert len(layers) >= 5 and {record.compute for record in layers[:-1]} == {"int8"}  # not the head
    assert not any("pool" in record.op.lower() and record.compute != "int8" for record in records)


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_leaky_relus_between_convolutions_take_codes(made: Printer, target: str) -> None:
    item = made("leaky", target)
    ops = [record.op for record in inspect_bytes(item.file, item.target.format).records]
    convolutions = [at for at, op in enumerate(ops) if op in ("CONV_2D", "QLinearConv")]
    between = set(ops[convolutions[0] : convolutions[-1]])
    assert between in ({"CONV_2D", "LEAKY_RELU", "ADD"}, {"QLinearConv", "QLinearLeakyRelu", "QLinearAdd"})


@pytest.mark.parametrize("net", ["curves", "places", "resized", "leaky", "dual", "joined", "paired"])
@pytest.mark.parametrize("target", ["tflite-fp32", "tflite-int8"])
def test_layers_that_few_models_have_leave_the_delegate_whole(made: Printer, net: str, target: str) -> None:
    truth = inspect_bytes(made(net, target).file, "tflite").truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (1, ())


@pytest.mark.parametrize("net", ["curves", "places", "resized"])
def test_layers_that_few_models_have_run_on_integers_alone(made: Printer, net: str) -> None:
    item = made(net, "tflite-int8-full")
    shown = images(8, seed=2)
    wanted = scores(item.simulated, shown)
    assert np.abs(item.answers(shown) - wanted).max() <= 0.03 * np.abs(wanted).max()
