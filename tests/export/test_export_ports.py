"""Files that take pixels as they are answer what the files that take normalized floats answer."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from export_nets import NETS, SHAPE, lively
from numpy.typing import NDArray
from torch import Tensor

from device_runner.engines import open_engine
from device_runner.manifest import Input, Preprocess
from device_runner.preprocess import tensor
from shrink import quantize, targets
from shrink.export.bundle import image_input
from shrink.export.onnx import to_onnx
from shrink.export.ports import Codes
from shrink.export.tflite import Form, to_tflite
from shrink.graph.capture import capture
from shrink.graph.entrance import Layout, with_entrance
from shrink.graph.lower import lower
from shrink.inspect.truth import Inspection, inspect_bytes
from shrink.quantize.plan import make_plan

P = Preprocess(
    color="RGB", exif=True, resize="exact", size=SHAPE[2:], filter="bilinear", crop=None,
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
)  # fmt: skip
NORMALIZATION = (P.mean, P.std)
"""What the files fold in."""


def pixels(count: int, seed: int) -> NDArray[np.uint8]:
    """(n, H, W, C)"""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *SHAPE[2:], 3), dtype=np.uint8)


def normal(image: NDArray[np.uint8]) -> Tensor:
    spec = image_input(SHAPE, "NCHW")
    return torch.from_numpy(tensor(image, P, spec))


@cache
def file(net: str, target_name: str, dtype: Codes | None, layout: Layout) -> tuple[bytes, Input]:
    torch.manual_seed(5)
    target = targets.load(target_name)
    graph = capture(lively(NETS[net]()), SHAPE)
    lower(graph, target.rewrites, normalization=NORMALIZATION)
    if target.precision == "int8":
        (scheme, *_) = quantize.schemes(graph.graph, target).values()
        images = [normal(image) for image in pixels(16, seed=1)]
        observed = quantize.observe(graph, [target], images, normalization=NORMALIZATION)
        plan = make_plan(scheme, observed.ranges, every_row=target.dynamic_rows)
        onnx_form = target.format == "onnx"
        graph = quantize.apply(graph, plan, unsigned=target.activation_codes == "uint8", pack_weights=onnx_form)
    graph = with_entrance(graph, layout=layout, normalization=NORMALIZATION if dtype else None)
    spec = image_input(SHAPE, layout, dtype)
    if target.format == "onnx":
        return to_onnx(graph, pixels=dtype), spec
    return to_tflite(graph, quantized=target.precision == "int8", form=Form(pixels=dtype)), spec


def answers(net: str, target: str, dtype: Codes | None, layout: Layout) -> NDArray[np.float32]:
    """Of the device, on the same images."""
    model, spec = file(net, target, dtype, layout)
    engine = open_engine(model, target.split("-")[0])
    return np.concatenate([engine.run(tensor(image, P, spec)) for image in pixels(6, seed=2)]).astype(np.float32)


def inspected(net: str, target: str, dtype: Codes, layout: Layout) -> Inspection:
    return inspect_bytes(file(net, target, dtype, layout)[0], targets.load(target).format)


@pytest.mark.parametrize(("dtype", "layout"), [("uint8", "NHWC"), ("int8", "NCHW")])
@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_pixels_and_floats_give_an_int8_file_the_very_same_answers(target: str, dtype: Codes, layout: Layout) -> None:
    floats = answers("cnn", target, None, targets.load(target).layout)
    assert np.array_equal(answers("cnn", target, dtype, layout), floats)
    assert len(np.unique(floats, axis=0)) == 6


@pytest.mark.parametrize(
    ("net", "target", "dtype", "layout"),
    [
        ("cnn", "tflite-fp32", "uint8", "NHWC"),
        ("cnn", "onnx-fp32", "int8", "NHWC"),
    ],
)
def test_pixels_and_floats_give_a_float_file_the_same_answers_to_rounding(
    net: str, target: str, dtype: Codes, layout: Layout
) -> None:
    floats = answers(net, target, None, targets.load(target).layout)
    np.testing.assert_allclose(answers(net, target, dtype, layout), floats, rtol=0, atol=1e-5 * np.abs(floats).max())


def test_pixels_and_floats_give_ranges_at_run_time_nearly_the_same_answers() -> None:
    """An input a float's last bit apart may fall to the next of 256 codes: one step somewhere, not many."""
    floats = answers("vit", "onnx-int8", None, "NCHW")
    np.testing.assert_allclose(answers("vit", "onnx-int8", "uint8", "NCHW"), floats, rtol=0, atol=0.02 * np.ptp(floats))


@pytest.mark.parametrize(("dtype", "layout"), [("uint8", "NHWC"), ("int8", "NCHW")])
@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_the_file_takes_what_it_says_and_its_first_convolution_reads_the_codes(
    target: str, dtype: Codes, layout: Layout
) -> None:
    found = inspected("cnn", target, dtype, layout)
    (port,) = found.contract.inputs
    assert (port.dtype, port.shape) == (dtype, {"NHWC": (1, 16, 16, 3), "NCHW": (1, 3, 16, 16)}[layout])
    assert found.truth.int8_mac_share > 0.99
    if target == "tflite-int8":
        assert (port.scale, port.zero_point) == (1.0, {"uint8": 0, "int8": -128}[dtype])
        first = [record.op for record in found.records].index("CONV_2D")
        assert not any("float32" in (*r.input_dtypes, r.output_dtype) for r in found.records[: first + 1])


def test_an_onnx_file_of_pixels_is_sound() -> None:
    for dtype, layout in (("uint8", "NHWC"), ("int8", "NCHW")):
        onnx.checker.check_model(onnx.load_from_string(file("cnn", "onnx-int8", dtype, layout)[0]), full_check=True)
