import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from shrink.verify.statistics import MOST_IMAGES, decide, images_needed, mcnemar_exact, paired_interval

Z95 = 1.959963984540054
Z90 = 1.6448536269514722


@st.composite
def flips(draw: st.DrawFn) -> tuple[int, int, int]:
    """(lost, won, n)"""
    n = draw(st.integers(1, 20_000))
    lost = draw(st.integers(0, n))
    return lost, draw(st.integers(0, n - lost)), n


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_a_two_sided_binomial_test_of_a_fair_coin(lost: int, won: int) -> None:
    expected = binomtest(lost, lost + won, 0.5).pvalue if lost + won else 1.0
    assert mcnemar_exact(lost, won) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_is_exact_at_counts_where_factorials_overflow() -> None:
    tail = sum(math.comb(2000, k) for k in range(951))
    assert mcnemar_exact(1050, 950) == pytest.approx(2 * tail / 2**2000, rel=1e-9)


def test_interval_of_a_published_example() -> None:
    """Fagerlund, Lydersen, Laake (Statistics in Medicine, 2014): 1 and 7 discordant of 21 children."""
    assert paired_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("n", [1, 10, 2_000, 1_000_000])
def test_interval_without_a_flip_has_tangos_closed_form(n: int) -> None:
    end = Z95**2 / (n + Z95**2)
    assert paired_interval(0, 0, n) == pytest.approx((-end, end), rel=1e-6)


@pytest.mark.parametrize("n", [1, 10, 2_000])
def test_interval_when_all_answers_are_lost_or_won(n: int) -> None:
    low = (n - Z95**2) / (n + Z95**2)
    assert paired_interval(n, 0, n) == pytest.approx((low, 1.0), rel=1e-6)
    assert paired_interval(0, n, n) == pytest.approx((-1.0, -low), rel=1e-6)


@pytest.mark.parametrize(("lost", "won", "n"), [(12, 2, 50), (31, 20, 10_000), (0, 3, 400), (25, 25, 50), (7, 3, 10)])
def test_ends_lie_a_score_of_z_away_by_a_numeric_likelihood(lost: int, won: int, n: int) -> None:
    """The rates under a supposed drop are found by maximizing the likelihood, not by the formula."""
    for drop in paired_interval(lost, won, n):
        assert abs(_numeric_score(lost, won, n, drop)) == pytest.approx(Z95, rel=1e-3)


def _numeric_score(lost: int, won: int, n: int, drop: float) -> float:
    def unlikely(won_rate: float) -> float:
        rates = (won_rate + drop, won_rate, 1 - 2 * won_rate - drop)
        counts = (lost, won, n - lost - won)
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, rates, strict=True) if k)

    bounds = (max(0.0, -drop), (1 - drop) / 2)
    won_rate = float(minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x)
    return (lost - won - n * drop) / math.sqrt(n * (2 * won_rate + drop - drop**2))


@given(flips())
def test_interval_holds_the_observed_drop_and_mirrors(counts: tuple[int, int, int]) -> None:
    lost, won, n = counts
    low, high = paired_interval(lost, won, n)
    assert -1 <= low <= (lost - won) / n <= high <= 1
    assert low < high
    assert paired_interval(won, lost, n) == (-high, -low)


@given(flips())
def test_more_confidence_is_a_wider_interval(counts: tuple[int, int, int]) -> None:
    low, high = paired_interval(*counts, confidence=0.99)
    inner_low, inner_high = paired_interval(*counts, confidence=0.90)
    assert low <= inner_low and inner_high <= high


@pytest.mark.parametrize("counts", [(-1, 0, 10), (0, -1, 10), (6, 5, 10), (0, 0, 0)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="is not a count of flips"):
        paired_interval(*counts)


def _draw(n: int, lost: float, won: float, times: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(20)
    drawn = rng.multinomial(n, (lost, won, 1 - lost - won), size=times)
    return [(int(a), int(b)) for a, b, _ in drawn]


@pytest.mark.parametrize(("n", "lost", "won"), [(2000, 0.02, 0.01), (10_000, 0.007, 0.004), (500, 0.04, 0.03)])
def test_interval_covers_the_truth_in_95_of_100_trials(n: int, lost: float, won: float) -> None:
    times = 4000
    ends = [paired_interval(*counts, n) for counts in _draw(n, lost, won, times)]
    covered = sum(low <= lost - won <= high for low, high in ends) / times
    assert covered == pytest.approx(0.95, abs=0.011)  # 3 standard errors of the simulation


@pytest.mark.parametrize(
    ("n", "budget", "won"), [(2000, 0.01, 0.005), (2000, 0.01, 0.0), (10_000, 0.003, 0.004), (500, 0.01, 0.03)]
)
def test_a_model_exactly_at_the_limit_seldom_passes(n: int, budget: float, won: float) -> None:
    times = 4000
    verdicts = [decide(*counts, n, max_drop=budget) for counts in _draw(n, budget + won, won, times)]
    assert verdicts.count("pass") / times <= 0.05 + 0.011
    assert verdicts.count("fail") / times <= 0.05 + 0.015


def test_verdicts() -> None:
    assert decide(10, 10, 2000, max_drop=0.01) == "pass"
    assert decide(80, 10, 2000, max_drop=0.01) == "fail"
    assert decide(30, 15, 2000, max_drop=0.01) == "not enough images"
    assert decide(0, 0, 2000, max_drop=0.01) == "pass"
    assert decide(0, 0, 100, max_drop=0.01) == "not enough images"
    assert decide(0, 0, 10_000, max_drop=0.0) == "not enough images"  # no sample proves "not one"


@given(flips(), st.floats(0, 0.2))
def test_the_verdict_is_where_the_limit_lies_in_the_interval(counts: tuple[int, int, int], limit: float) -> None:
    low, high = paired_interval(*counts, confidence=0.90)
    expected = "pass" if high <= limit else "fail" if limit < low else "not enough images"
    assert decide(*counts, max_drop=limit) == expected


def test_precision_is_that_of_the_discordant_share() -> None:
    """With a share f of flips the 90 % half width is 1.645 sqrt(f / n): 0.16 points at 1 % and 10,000."""
    low, high = paired_interval(50, 50, 10_000, confidence=0.90)
    assert (high - low) / 2 == pytest.approx(Z90 * math.sqrt(0.01 / 10_000), rel=0.02)


@settings(max_examples=200)
@given(flips(), st.floats(0, 0.2))
def test_the_images_asked_for_would_decide_and_fewer_would_not(counts: tuple[int, int, int], limit: float) -> None:
    lost, won, n = counts
    further = images_needed(lost, won, n, limit)
    if further is None:
        assert decide(lost, won, n, max_drop=limit) != "not enough images"
    elif further < MOST_IMAGES:
        enough = math.ceil(1 + further / n)
        assert decide(lost * enough, won * enough, n * enough, max_drop=limit) != "not enough images"
        few = math.floor(1 + 0.9 * further / n)  # rounding up adds less than a tenth
        assert decide(lost * few, won * few, n * few, max_drop=limit) == "not enough images"


def test_images_needed_by_hand() -> None:
    """Without a flip the bound is z^2 / (n + z^2), below 1 % from n = 268 on: 168 more, said as 170."""
    assert images_needed(0, 0, 100, 0.01) == 170
    assert images_needed(0, 0, 300, 0.01) is None


def test_a_drop_at_the_limit_asks_for_the_most_images() -> None:
    assert images_needed(30, 10, 2000, 0.01) == MOST_IMAGES
    assert images_needed(0, 0, 2000, 0.0) == MOST_IMAGES
