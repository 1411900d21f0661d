"""16-bit activations and 8-bit weights: the file is its simulation, and nearer to the float model than 8 bits are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from export_nets import Printed, images, scores
from hypothesis import given
from hypothesis import strategies as st

from shrink.export.int16 import known
from shrink.inspect.truth import inspect_bytes

Printer = Callable[..., Printed]


@pytest.mark.parametrize("net", ["cnn", "vit", "mixed"])
def test_every_op_between_the_ends_has_16_bit_operands(made: Printer, net: str) -> None:
    found = inspect_bytes(made(net, "tflite-int16x8").file, "tflite")
    first, *inner, last = found.records
    assert (first.op, last.op) == ("QUANTIZE", "DEQUANTIZE")
    dtypes = {dtype for record in inner for dtype in (*record.input_dtypes, record.output_dtype)}
    assert dtypes == {"int16", "int8", "int32", "int64"}  # values, weights, shapes and axes, biases
    assert {record.compute for record in inner} == {"int16x8", "none"}


@pytest.mark.parametrize("net", ["cnn", "vit", "mixed"])
def test_the_file_is_its_simulation_and_nearer_to_float_than_8_bits(made: Printer, net: str) -> None:
    wide, narrow = made(net, "tflite-int16x8"), made(net, "tflite-int8-full")
    shown = images(8, seed=3)
    wanted = scores(wide.module, shown)
    given, simulated = wide.answers(shown), scores(wide.simulated, shown)
    spread = wanted.std()
    assert np.abs(given - simulated).max() < 0.005 * spread
    error, before = (float(np.sqrt(np.square(x - wanted).mean())) for x in (given, narrow.answers(shown)))
    assert error < 0.02 * spread and error < 0.7 * before


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6), st.floats(2**-8, 1), st.integers(-128, 127))
def test_a_constant_is_found_by_its_codes(values: list[float], scale: float, zero_point: int) -> None:
    numbers = np.array(values, np.float32).reshape(1, -1, 1, 1)
    for (_, zero, codes), behind in known(scale, zero_point, numbers).items():
        steps = np.frombuffer(codes, np.int8).astype(np.float64) - zero
        inside = np.abs(steps + zero) < 127
        assert np.abs(steps * scale - behind)[inside].max(initial=0) <= scale * 0.51
