"""Times several runners in turns, once all of them are warm.

A host is never quiet. What disturbs it disturbs all runners alike when they take turns in random
order, so the ratio of two runners in the same round holds where their milliseconds do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Run = Callable[[], object]
Clock = Callable[[], int]  # nanoseconds from any start
Times = dict[str, list[float]]  # milliseconds of each round, by name

STEADY = 0.05  # a runner is warm when its last medians differ by less than this share


@dataclass(frozen=True, slots=True)
class Limits:
    """When a series is long enough. Rounds and time are of all runners together; both are met, unless
    `max_seconds` has passed before; at least one round is always taken."""

    min_samples: int = 50
    min_seconds: float = 1.0
    max_seconds: float = 20.0
    warmup_seconds: float = 2.0  # the most time for the rounds before, whose times are thrown away
    window: int = 5  # rounds in each of the two medians that must agree before a runner counts as warm


def series(runs: Mapping[str, Run], limits: Limits, rng: np.random.Generator, clock: Clock) -> tuple[Times, bool]:
    """One call of every runner per round, in a new random order every round.

    Returns:
        name -> its times, entry i of all names from the same round; and whether all were warm when it began.
    """
    warm = _warm_up(runs, limits, rng, clock)
    times: Times = {name: [] for name in runs}
    start, rounds, seconds = clock(), 0, 0.0
    while not rounds or (
        seconds < limits.max_seconds and (rounds < limits.min_samples or seconds < limits.min_seconds)
    ):
        _round(runs, rng, clock, times)
        rounds, seconds = rounds + 1, (clock() - start) / 1e9
    return times, warm


def timed(run: Callable[[], object], clock: Clock = time.perf_counter_ns) -> float:
    """Milliseconds of one call."""
    start = clock()
    run()
    return (clock() - start) / 1e6


def _warm_up(runs: Mapping[str, Run], limits: Limits, rng: np.random.Generator, clock: Clock) -> bool:
    times: Times = {name: [] for name in runs}
    start = clock()
    while not (warm := all(_steady(taken, limits.window) for taken in times.values())):
        if clock() - start >= limits.warmup_seconds * 1e9:
            break
        _round(runs, rng, clock, times)
    return warm


def _steady(times: list[float], window: int) -> bool:
    if len(times) < 2 * window:
        return False
    before, last = np.median(times[-2 * window : -window]), np.median(times[-window:])
    return bool(abs(last - before) <= STEADY * before)


def _round(runs: Mapping[str, Run], rng: np.random.Generator, clock: Clock, times: Times) -> None:
    names = list(runs)
    for index in rng.permutation(len(names)):
        times[names[index]].append(timed(runs[names[index]], clock))
