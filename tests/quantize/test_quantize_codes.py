"""The arithmetic of codes, by properties."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from quantize_graphs import rounded

from shrink.quantize.codes import SMALLEST_SCALE, WEIGHT_LIMIT, affine, weight_scales
from shrink.quantize.ranges import Range, join, within_ends

numbers = st.floats(-1e6, 1e6, allow_nan=False)
ranges = st.tuples(numbers, numbers).map(lambda ends: Range(min(ends), max(ends)))


@given(ranges)
def test_zero_is_held_exactly(found: Range) -> None:
    codes = affine(found)
    assert rounded(np.array([0.0]), codes)[0] == 0.0
    assert -128 <= codes.zero_point <= 127
    assert codes.scale >= SMALLEST_SCALE


@given(ranges, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_value_of_the_range_is_off_by_half_a_step_at_most(found: Range, where: list[float]) -> None:
    """Beyond both ends the zero point may be rounded by another half step."""
    codes = affine(found)
    x = found.low + np.array(where) * (found.high - found.low)
    error = np.abs(rounded(x, codes) - x)
    assert (error <= codes.scale * (1 + 1e-9)).all()
    inner = np.clip(x, (-128 - codes.zero_point) * codes.scale, (127 - codes.zero_point) * codes.scale)
    assert (np.abs(rounded(inner, codes) - inner) <= codes.scale / 2 * (1 + 1e-6)).all()


@given(ranges)
def test_the_codes_reach_over_the_whole_range(found: Range) -> None:
    codes = affine(found)
    low, high = (-128 - codes.zero_point) * codes.scale, (127 - codes.zero_point) * codes.scale
    assert low - codes.scale <= min(found.low, 0) and max(found.high, 0) <= high + codes.scale


@given(ranges, st.lists(numbers, min_size=2, max_size=20))
def test_rounding_keeps_the_order(found: Range, values: list[float]) -> None:
    ordered = np.sort(np.array(values))
    assert (np.diff(rounded(ordered, affine(found))) >= 0).all()


def test_a_range_without_values_or_on_one_side_includes_zero() -> None:
    assert affine(Range(0.0, 0.0)).scale == SMALLEST_SCALE
    assert affine(Range(2.0, 4.0)) == affine(Range(0.0, 4.0))
    assert affine(Range(0.0, 255.0)).zero_point == -128 and affine(Range(0.0, 255.0)).scale == 1.0
    assert affine(Range(-255.0, 0.0)).zero_point == 127
    assert affine(Range(-4.0, -2.0)) == affine(Range(-4.0, 0.0))


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=8))
def test_weight_scales_put_the_largest_weight_of_each_output_on_the_last_code(rows: list[list[float]]) -> None:
    weight = torch.tensor(rows)
    scales = weight_scales(weight.reshape(len(rows), 3, 1, 1))
    assert torch.equal(scales, weight_scales(weight)) and scales.dtype == torch.float32
    for row, scale in zip(rows, scales, strict=True):
        largest = max(map(abs, rows and row))
        np.testing.assert_allclose(float(scale), max(largest / WEIGHT_LIMIT, SMALLEST_SCALE), rtol=1e-6)
        assert round(largest / float(scale)) <= WEIGHT_LIMIT


names = st.sampled_from("abcdefg")


@given(st.dictionaries(names, ranges, min_size=1), st.lists(st.tuples(names, names)))
def test_tied_values_share_the_range_of_their_closure(found: dict[str, Range], pairs: list[tuple[str, str]]) -> None:
    """Against groups merged pair by pair until none changes."""
    tied = [(a, b) for a, b in pairs if a in found and b in found]
    groups = [{name} for name in found]
    for _ in found:
        for a, b in tied:
            one = next(g for g in groups if a in g)
            two = next(g for g in groups if b in g)
            if one is not two:
                groups.remove(two)
                one |= two
    joined = join(found, tied)
    assert joined.keys() == found.keys()
    for group in groups:
        for name in group:
            assert joined[name].low == min(found[n].low for n in group)
            assert joined[name].high == max(found[n].high for n in group)


def test_a_spare_tie_goes_only_where_a_clamp_would_lose_by_it() -> None:
    found = {"relu": Range(0, 4), "pool": Range(0, 4), "conv": Range(-3, 9), "cat": Range(-3, 9), "six": Range(0, 6)}
    ends = {"relu": (0.0, math.inf), "six": (0.0, 6.0)}
    tied, spare = [("relu", "pool")], [("pool", "cat"), ("conv", "cat"), ("six", "pool"), ("six", "cat")]
    assert within_ends(found, tied, spare, ends) == (("conv", "cat"), ("six", "pool"))
    assert within_ends(found, tied, spare, {}) == tuple(spare)


@given(st.dictionaries(names, ranges, min_size=1), st.lists(st.tuples(names, names)), st.sets(names))
def test_no_range_reaches_beyond_the_ends_of_what_has_it(
    found: dict[str, Range], pairs: list[tuple[str, str]], clamped: set[str]
) -> None:
    ends = {name: (found[name].low, found[name].high) for name in clamped & found.keys()}
    spare = [(a, b) for a, b in pairs if a in found and b in found]
    joined = join(found, within_ends(found, [], spare, ends))
    assert all(low <= joined[name].low and joined[name].high <= high for name, (low, high) in ends.items())
