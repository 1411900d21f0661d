"""8-bit weights, input ranges at run time, nothing calibrated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from export_nets import Printed, images, scores

from shrink.inspect.truth import inspect_bytes

Printer = Callable[..., Printed]


@pytest.mark.parametrize(("net", "weighted", "float_layers"), [("cnn", 5, 1), ("vit", 6, 0)])
def test_every_layer_that_the_runtime_takes_so_is_int8(
    made: Printer, net: str, weighted: int, float_layers: int
) -> None:
    """All but the depthwise convolution: XNNPACK has no kernel that quantizes its input at run time."""
    item = made(net, "tflite-dynamic")
    found = inspect_bytes(item.file, "tflite")
    layers = [record for record in found.records if record.macs and record.weight_dtype]
    assert [r.compute for r in layers].count("int8-dynamic") == weighted
    assert [r.op for r in layers if r.compute == "float32"] == ["DEPTHWISE_CONV_2D"] * float_layers
    assert found.truth.delegate_partitions == 1
    assert (found.truth.input_dtype, found.truth.output_dtype) == ("float32", "float32")


@pytest.mark.parametrize("net", ["cnn", "vit"])
def test_the_file_answers_as_the_simulation_and_near_the_float_model(made: Printer, net: str) -> None:
    item = made(net, "tflite-dynamic")
    shown = images(8, seed=3)
    given, simulated, wanted = item.answers(shown), scores(item.simulated, shown), scores(item.module, shown)
    assert np.abs(given - simulated).max() < 0.02 * np.ptp(wanted)
    assert np.sqrt(np.square(given - wanted).mean()) < 0.03 * wanted.std()
