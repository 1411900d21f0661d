"""The exact test never passes a bad model more often than it says, at any rate of flips; Tango's interval does."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from shrink.verify.exact import scores, surely_below
from shrink.verify.statistics import _score, decide


@given(st.integers(1, 5000), st.data(), st.floats(0.0, 0.5))
def test_the_scores_are_those_of_the_interval(n: int, data: st.DataObject, drop: float):
    lost = data.draw(st.integers(0, n))
    won = data.draw(st.integers(0, n - lost))
    found = scores(np.array([lost]), np.array([won]), n, drop)[0]
    assert found == pytest.approx(_score(lost, won, n, drop), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("lost", "won", "n", "limit"), [(1, 0, 30, 0.2), (3, 2, 25, 0.3), (0, 0, 40, 0.1)])
def test_a_small_table_is_added_up_outcome_by_outcome(lost: int, won: int, n: int, limit: float):
    seen = _score(lost, won, n, limit)
    outcomes = [(a, b) for a in range(n + 1) for b in range(n + 1 - a) if _score(a, b, n, limit) <= seen + 1e-9]
    rates = np.linspace(0, (1 - limit) / 2, 801)
    counts = np.array([(a, b, n - a - b) for a, b in outcomes])
    worst = max(multinomial.pmf(counts, n, [limit + q, q, 1 - limit - 2 * q]).sum() for q in rates)
    p = surely_below(lost, won, n, limit)
    assert p <= worst + 2e-4  # the confidence set may only narrow it
    assert p >= 0.2 * worst


@cache
def passes(lost: int, won: int, n: int, limit: float, exact: bool) -> bool:
    return decide(lost, won, n, max_drop=limit) == "pass" and (not exact or surely_below(lost, won, n, limit) <= 0.05)


def size(n: int, limit: float, rate: float, *, exact: bool) -> float:
    """The chance that a model whose drop is the limit passes, over all outcomes."""
    total, most = 0.0, int(binom.ppf(1 - 1e-7, n, rate)) + 1
    lost = -1
    for won in range(most + 1):
        while lost + 1 + won <= n and passes(lost + 1, won, n, limit, exact):
            lost += 1
        while lost >= 0 and not passes(lost, won, n, limit, exact):
            lost -= 1
        if lost >= 0:
            total += binom.pmf(won, n, rate) * binom.cdf(lost, n - won, (limit + rate) / (1 - rate))
    return float(total)


@pytest.mark.parametrize(
    ("n", "limit", "rate"),
    [(500, 0.002, 0.005), (200, 0.005, 0.01), (200, 0.005, 0.02), (1000, 0.005, 0.005), (500, 0.01, 0.0)],
)
def test_a_model_at_the_limit_passes_at_most_one_time_in_twenty(n: int, limit: float, rate: float):
    assert size(n, limit, rate, exact=True) <= 0.05


def test_the_interval_alone_would_pass_it_more_often():
    assert size(500, 0.002, 0.005, exact=False) > 0.055


@settings(max_examples=30)
@given(st.integers(50, 3000), st.data(), st.sampled_from([0.003, 0.01, 0.05]))
def test_one_more_lost_is_never_better(n: int, data: st.DataObject, limit: float):
    lost = data.draw(st.integers(0, n // 4))
    won = data.draw(st.integers(0, n // 4))
    assert surely_below(lost, won, n, limit) <= surely_below(lost + 1, won, n, limit) + 1e-9


def test_a_large_set_is_decided_in_no_time():
    assert surely_below(120, 100, 50_000, 0.003) <= 1.01e-4  # what the confidence set leaves out
    assert surely_below(260, 100, 50_000, 0.003) > 0.5
