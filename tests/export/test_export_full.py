"""Integers only: no float in the file, and the answers of the simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from export_nets import Printed, images, scores

from shrink.inspect.truth import inspect_bytes

Printer = Callable[..., Printed]


@pytest.mark.parametrize("net", ["cnn", "vit", "mixed"])
def test_no_float_is_left_in_the_file(made: Printer, net: str) -> None:
    found = inspect_bytes(made(net, "tflite-int8-full").file, "tflite")
    dtypes = {dtype for record in found.records for dtype in (*record.input_dtypes, record.output_dtype)}
    assert dtypes == {"int8", "int32"}
    assert {record.compute for record in found.records} <= {"int8", "none"}
    assert (found.truth.input_dtype, found.truth.output_dtype) == ("int8", "int8")
    assert found.truth.int8_mac_share == 1.0 and not found.truth.leftovers


@pytest.mark.parametrize("net", ["cnn", "vit", "mixed"])
def test_the_file_answers_as_the_simulation_and_near_the_float_model(made: Printer, net: str) -> None:
    """Kernels with tables and fixed-point arithmetic round otherwise than floats do: a few steps of the output."""
    item = made(net, "tflite-int8-full")
    shown = images(8, seed=3)
    given, simulated, wanted = item.answers(shown), scores(item.simulated, shown), scores(item.module, shown)
    (port,) = inspect_bytes(item.file, "tflite").contract.outputs
    assert port.scale is not None and len(np.unique(given, axis=0)) > 1
    assert np.abs(given - simulated).max() < 3.01 * port.scale
    assert np.sqrt(np.square(given - wanted).mean()) < 0.05 * wanted.std()
