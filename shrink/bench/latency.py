"""Latency of several runners on this host, taken in turns so that the comparison is fair.

A host is never quiet. What disturbs it disturbs all runners alike when they take turns in random
order, so the ratio of two runners in the same round holds where their milliseconds do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from device_runner.manifest import Latency
from device_runner.probe.timing import Limits, Run, series

SLOWING = 1.1  # second half / first half of the samples
NOISY = 1.5  # p90 / median
FEWEST = 20  # samples below which a median is not to be trusted


@dataclass(frozen=True, slots=True)
class Samples:
    """Raw times of one runner in the order taken, milliseconds each; at least one."""

    samples_ms: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.samples_ms))

    @property
    def p90(self) -> float:
        return float(np.percentile(self.samples_ms, 90))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why not to trust these samples; empty when there is no reason."""
        found = []
        half = len(self.samples_ms) // 2
        if len(self.samples_ms) < FEWEST:
            found.append(f"few samples: {len(self.samples_ms)}")
        elif (slower := float(np.median(self.samples_ms[half:]) / np.median(self.samples_ms[:half]))) > SLOWING:
            found.append(f"slowing down: second half {slower:.2f}x the first (throttling?)")
        if (spread := self.p90 / self.median) > NOISY:
            found.append(f"noisy: p90 is {spread:.2f}x the median")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long as the other: below 1 is faster. 95 % interval low..high."""

    median: float
    low: float
    high: float


def interleave(
    runs: Mapping[str, Run],
    *,
    rng: np.random.Generator,
    min_samples: int = 50,
    min_seconds: float = 1.0,
    max_seconds: float = 20.0,
    warmup_seconds: float = 2.0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Samples]:
    """Time all runners, one call each per round, in a new random order every round.

    Args:
        runs: name -> one inference.
        rng: draws the order.
        min_samples, min_seconds: rounds and time for all runners together; both are met, unless
        max_seconds: has passed before; at least one round is always taken.
        warmup_seconds: the most time for the rounds before, whose times are thrown away.
        clock: nanoseconds from any start.

    Returns:
        name -> its samples; sample i of all names is from the same round.
    """
    limits = Limits(min_samples, min_seconds, max_seconds, warmup_seconds)
    times, _ = series(runs, limits, rng, clock)
    return {name: Samples(tuple(taken)) for name, taken in times.items()}


def ratio(a: Samples, b: Samples) -> Ratio:
    """Time of `a` over time of `b`, from the rounds both were in.

    The interval is the sign test's: order statistics, with no assumption about how times are spread.
    With fewer than 6 rounds there is no 95 % interval, and low..high is all that was seen.
    """
    pairs = np.sort(np.divide(a.samples_ms, b.samples_ms))
    n = len(pairs)
    rank = int(np.count_nonzero(bdtr(np.arange(n), n, 0.5) <= 0.025))  # pairs outside, on each side
    edge = max(rank - 1, 0)
    return Ratio(float(np.median(pairs)), float(pairs[edge]), float(pairs[n - 1 - edge]))


def latency(samples: Samples, reference: Samples | None, *, host: str) -> Latency:
    """The line for the manifest. `reference`: the float artefact of the same format, same rounds."""
    return Latency(
        median_ms=samples.median,
        p90_ms=samples.p90,
        ratio_to_float=ratio(samples, reference).median if reference else None,
        samples=len(samples.samples_ms),
        host=host,
    )
