"""Grey levels come back from normalized values exactly."""

from __future__ import annotations

import numpy as np
from data_samples import GREY
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from device_runner.preprocess import normalize
from shrink.data.levels import grey_levels

ALL = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


@given(st.floats(-2, 2, width=32), st.floats(2**-8, 4, width=32))
def test_every_grey_level_survives_any_normalization(mean: float, std: float) -> None:
    p = replace(GREY, mean=(mean,), std=(std,))
    assert np.array_equal(grey_levels(normalize(ALL, p), p), ALL)


def test_what_is_no_grey_level_goes_to_the_nearest() -> None:
    p = replace(GREY, mean=(0.0,), std=(1.0,))
    x = np.array([[[-3.0], [0.4 / 255], [0.6 / 255], [7.0]]], np.float32)
    assert grey_levels(x, p).tolist() == [[[0], [0], [1], [255]]]
