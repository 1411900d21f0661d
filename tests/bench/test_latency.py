from collections.abc import Callable, Iterable

import numpy as np
import pytest

from shrink.bench.latency import Samples, interleave, latency, ratio


class FakeClock:
    """Nanoseconds that pass only when a fake runner takes them."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now

    def runner(self, times_ms: Iterable[float], called: Callable[[], None] = lambda: None) -> Callable[[], None]:
        series = iter(times_ms)

        def run() -> None:
            called()
            self.now += round(next(series) * 1e6)

        return run


def forever(time_ms: float) -> Iterable[float]:
    while True:
        yield time_ms


def test_samples_are_the_known_series_in_order() -> None:
    clock = FakeClock()
    fast, slow = [1.0 + i / 100 for i in range(30)], [5.0 + i / 10 for i in range(30)]
    runs = {"fast": clock.runner(fast), "slow": clock.runner(slow)}
    taken = interleave(runs, rng=np.random.default_rng(0), min_samples=30, min_seconds=0, warmup_seconds=0, clock=clock)
    assert taken["fast"].samples_ms == pytest.approx(fast)
    assert taken["slow"].samples_ms == pytest.approx(slow)
    assert list(taken) == ["fast", "slow"]


def test_every_round_calls_each_once_in_changing_order() -> None:
    clock, calls = FakeClock(), list[str]()
    runs = {name: clock.runner(forever(1), lambda name=name: calls.append(name)) for name in "abc"}
    interleave(runs, rng=np.random.default_rng(0), min_samples=40, min_seconds=0, warmup_seconds=0, clock=clock)
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 40
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len(set(rounds)) == 6  # every order came up


@pytest.mark.parametrize(
    ("limits", "rounds"),
    [
        ({"min_samples": 50, "min_seconds": 0.0}, 50),
        ({"min_samples": 50, "min_seconds": 1.0}, 100),  # 10 ms a round
        ({"min_samples": 50, "min_seconds": 1.0, "max_seconds": 0.3}, 30),
        ({"min_samples": 50, "min_seconds": 1.0, "max_seconds": 0.0}, 1),
    ],
)
def test_when_it_stops(limits: dict[str, float], rounds: int) -> None:
    clock = FakeClock()
    runs = {"a": clock.runner(forever(4)), "b": clock.runner(forever(6))}
    taken = interleave(runs, rng=np.random.default_rng(0), warmup_seconds=0, clock=clock, **limits)
    assert [len(samples.samples_ms) for samples in taken.values()] == [rounds, rounds]


def test_warm_up_throws_away_what_comes_before_steady_times() -> None:
    clock = FakeClock()
    cold = [100.0 / (i + 1) for i in range(20)] + [5.0] * 100
    taken = interleave(
        {"a": clock.runner(cold)},
        rng=np.random.default_rng(0),
        min_samples=10,
        min_seconds=0,
        warmup_seconds=60,
        clock=clock,
    )
    assert taken["a"].samples_ms == pytest.approx([5.0] * 10)


def test_warm_up_ends_though_times_never_settle() -> None:
    clock = FakeClock()
    taken = interleave(
        {"a": clock.runner(1.2**i for i in range(1000))},
        rng=np.random.default_rng(0),
        min_samples=1,
        min_seconds=0,
        warmup_seconds=0.5,
        clock=clock,
    )
    assert 80 < taken["a"].samples_ms[0] < 130  # sum of 1.2**i passes 500 ms at i = 25


def test_ratio_holds_while_the_host_slows_down() -> None:
    """Rounds run up to ten times slower, for both: only pairs of the same round tell."""
    host = np.random.default_rng(2).uniform(1, 10, 60)
    found = ratio(Samples(tuple(2.0 * host)), Samples(tuple(5.0 * host)))
    assert (found.median, found.low, found.high) == pytest.approx((0.4, 0.4, 0.4))


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (10, 2, 9), (25, 8, 18), (50, 18, 33), (100, 40, 61)])
def test_ratio_interval_is_that_of_the_published_sign_test_table(n: int, low: int, high: int) -> None:
    """Ranks of the 95 % interval of a median, as in tables of nonparametric statistics."""
    values = np.random.default_rng(1).permutation(np.arange(1.0, n + 1))
    found = ratio(Samples(tuple(values)), Samples((1.0,) * n))
    assert (found.median, found.low, found.high) == ((n + 1) / 2, low, high)


def test_ratio_of_few_rounds_gives_all_that_was_seen() -> None:
    found = ratio(Samples((3.0, 1.0, 2.0)), Samples((1.0, 1.0, 1.0)))
    assert (found.low, found.median, found.high) == (1.0, 2.0, 3.0)


def test_summaries() -> None:
    samples = Samples(tuple(map(float, range(1, 12))))
    assert (samples.median, samples.p90) == (6.0, 10.0)


@pytest.mark.parametrize(
    ("times", "warnings"),
    [
        ((10.0,) * 20, ()),
        ((10.0,) * 10 + (12.0,) * 10, ("slowing down: second half 1.20x the first (throttling?)",)),
        ((12.0,) * 10 + (10.0,) * 10, ()),
        ((10.0,) * 17 + (16.0,) * 4, ("noisy: p90 is 1.60x the median",)),
        ((10.0,) * 3, ("few samples: 3",)),
    ],
)
def test_samples_say_why_not_to_trust_them(times: tuple[float, ...], warnings: tuple[str, ...]) -> None:
    assert Samples(times).warnings == warnings


def test_the_manifest_line() -> None:
    line = latency(Samples((1.0, 2.0, 3.0)), Samples((4.0, 4.0, 4.0)), host="a board, 4 cores")
    assert (line.median_ms, line.p90_ms, line.ratio_to_float, line.samples) == (2.0, pytest.approx(2.8), 0.5, 3)
    assert line.host == "a board, 4 cores"
    assert latency(Samples((1.0,)), None, host="h").ratio_to_float is None
