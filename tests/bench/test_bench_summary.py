"""From samples to numbers, checked against scipy and against series whose percentiles are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shrink.bench.summary import accuracy, quantile_interval, times, versus, wilson


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilsons_interval_is_scipys(n: int, share: float) -> None:
    right = round(share * n)
    wanted = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_percentiles_of_a_known_distribution_are_found_within_two_percent() -> None:
    """Log-normal times: the percentiles are exp(sigma * z)."""
    rng = np.random.default_rng(0)
    found = times(np.exp(0.1 * rng.standard_normal((5, 8000))).tolist())
    assert found is not None and found.n == 40_000
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert getattr(found, name) == pytest.approx(np.exp(0.1 * stats.norm.ppf(q)), rel=0.02)
    assert found.p90_low <= found.p90 <= found.p90_high


def test_the_interval_of_a_quantile_holds_it_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(1)
    true = stats.expon.ppf(0.9)
    inside = 0
    for _ in range(1000):
        low, high = quantile_interval(np.sort(rng.exponential(size=200)), 0.9)
        inside += low <= true <= high
    assert inside >= 935  # 950 expected, standard deviation 7


def test_a_run_that_slows_down_by_a_third_keeps_three_quarters_of_its_speed() -> None:
    found = times([[3.0] * 100 + [4.0] * 100])
    assert found is not None and found.retention == pytest.approx(0.75)


def test_the_ratio_is_of_rounds_not_of_medians() -> None:
    """A machine that is slow in half of the rounds is slow for both."""
    slow = [1.0, 10.0] * 50
    found = versus([slow], [[2 * ms for ms in slow]])
    assert found is not None and (found.median, found.low, found.high) == (0.5, 0.5, 0.5)
    assert versus([], []) is None


def test_an_image_that_could_not_be_read_is_not_a_wrong_answer() -> None:
    found = accuracy([1, -1, 2, 0], [1, 1, 2, 1])
    assert (found.images, found.right, found.top1) == (3, 2, pytest.approx(2 / 3))
