"""Gates: how they are written, when they pass, and how seldom a bad model gets through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import lognorm

from shrink.bench.latency import Samples, ratio
from shrink.compare import gates
from shrink.compare.estimates import ESTIMATES, drop
from shrink.compare.gates import METRICS, Estimate, Gate, judge
from shrink.compare.sides import Answers, Side
from shrink.errors import RequestError
from shrink.runs.pairing import Keyed


def test_gates_are_read_alone_or_with_commas():
    found = gates.parse(["drop<=0.3", "latency<=1.05x,size <= 1x"])
    assert found == [Gate("drop", 0.3), Gate("latency", 1.05), Gate("size", 1.0)]


@pytest.mark.parametrize(
    ("written", "what", "fix"),
    [
        ("dorp<=0.3", "there is no gate 'dorp'", "did you mean 'drop'?"),
        ("drop<=0.3x", "the gate 'drop<=0.3x' cannot be read", "write points of top-1"),
        ("drop<0.3", "the gate 'drop<0.3' cannot be read", "such as drop<=0.3"),
        ("drop=0.3", "the gate 'drop=0.3' cannot be read", "such as drop<=0.3"),
        ("drop<=-1", "the gate 'drop<=-1' cannot be read", "such as drop<=0.3"),
        ("drop<=nan", "the gate 'drop<=nan' cannot be read", "such as drop<=0.3"),
        ("drop<=100", "the gate 'drop<=100' holds for every file", "such as drop<=0.3"),
        ("latency<=1.05", "the gate 'latency<=1.05' cannot be read", "such as latency<=1.05x"),
        ("size<=" + "9" * 400 + "x", "cannot be read", "such as size<=1.0x"),
        ("", "there is no gate 'nothing'", "use one of: drop, instructions, latency, size"),
        ("drop<=1,drop<=2", "there are two gates on drop", "give the stricter one"),
    ],
)
def test_a_gate_that_cannot_be_read_is_refused_with_the_way_to_write_it(written: str, what: str, fix: str):
    with pytest.raises(RequestError) as caught:
        gates.parse([written])
    assert what in caught.value.what and fix in caught.value.fix


def test_every_metric_has_a_way_to_be_found():
    assert set(ESTIMATES) == set(METRICS)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.0, 1.0, "pass"), (1.01, 2.0, "fail"), (0.9, 1.1, "cannot tell"), (1.0, 1.0, "pass"), (1.001, 1.001, "fail")],
)
def test_a_gate_passes_and_fails_only_surely(low: float, high: float, outcome: str):
    assert judge(Gate("size", 1.0), Estimate((low + high) / 2, low, high, "", "")) == outcome


def side(top1: np.ndarray) -> Side:
    n = len(top1)
    images = Keyed(tuple(i.to_bytes(16, "big") for i in range(n)), np.zeros(n, np.int32), tuple(map(str, range(n))))
    return Side("run", "file", 1, Answers(images, top1.astype(np.int64)), None)


def test_a_model_whose_drop_is_the_limit_passes_one_time_in_twenty_at_most():
    """End to end, where Tango's interval alone passes 5.6 % of them: 500 images, 0.2 points, 0.5 % won."""
    n, limit, won, times = 500, 0.002, 0.005, 3000
    rng = np.random.default_rng(1)
    old = side(np.zeros(n))
    counts = rng.multinomial(n, (limit + won, won, 1 - limit - 2 * won), size=times)
    outcomes = {}
    for lost, win in {(int(a), int(b)) for a, b, _ in counts}:
        before, now = np.zeros(n), np.zeros(n)
        before[:win], now[win : win + lost] = 1, 1
        found = drop(replace(old, answers=side(before).answers), side(now), 100 * limit)
        assert isinstance(found, Estimate) and found.value == pytest.approx(100 * (lost - win) / n)
        outcomes[lost, win] = judge(Gate("drop", 100 * limit), found)
    passed = sum(outcomes[int(a), int(b)] == "pass" for a, b, _ in counts) / times
    assert passed <= 0.05


def test_a_model_without_a_drop_passes_with_enough_images():
    found = drop(side(np.zeros(2000)), side(np.zeros(2000)), 0.3)
    assert isinstance(found, Estimate) and judge(Gate("drop", 0.3), found) == "pass"
    few = drop(side(np.zeros(200)), side(np.zeros(200)), 0.3)
    assert isinstance(few, Estimate) and judge(Gate("drop", 0.3), few) == "cannot tell"


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
def test_percentiles_of_a_known_series_are_found_within_two_percent(spread: float):
    """Times as quantiles of a log-normal, shuffled: the percentiles are known without drawing."""
    times = lognorm.ppf((np.arange(4000) + 0.5) / 4000, spread, scale=12.0)
    found = Samples(tuple(np.random.default_rng(2).permutation(times)))
    assert found.median == pytest.approx(12.0, rel=0.02)
    assert found.p90 == pytest.approx(lognorm.ppf(0.9, spread, scale=12.0), rel=0.02)


def test_the_interval_of_a_ratio_holds_the_truth_in_95_of_100_noisy_series():
    """Both runners are slowed alike, by up to a factor of 3, in every round."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        noise = rng.uniform(1, 3, 60)
        a = Samples(tuple(2.0 * noise * rng.lognormal(0, 0.05, 60)))
        b = Samples(tuple(1.6 * noise * rng.lognormal(0, 0.05, 60)))
        found = ratio(a, b)
        held += found.low <= 1.25 <= found.high
    assert 0.94 <= held / 1000 <= 0.99
