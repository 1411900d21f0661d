"""What a measurement is worth: one row per reason to doubt it. What is not known speaks against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_runner.probe.record import Facts, Moment, ProbeRecord, Side
from shrink.bench.result import Times, Verdict

FIXED_GOVERNORS = {"performance"}
ENOUGH_SAMPLES, ENOUGH_SECONDS = 1024, 60.0  # as MLPerf asks of a single stream
ENOUGH_REPEATS = 3
MOST_APART = 0.05  # medians of repetitions
LEAST_RETENTION = 0.95
MOST_SPREAD = 1.5  # p90 / p50
MOST_PRESSURE = 5.0  # percent
LEAST_SPEED = 0.95  # of the most the hardware allows
NOW_BITS = 0xF  # of get_throttled; the bits from 16 on are of the whole time since boot


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rules look at."""

    record: ProbeRecord
    times: Times

    @property
    def facts(self) -> Facts:
        return self.record.facts

    @property
    def side(self) -> Side:
        return self.record.candidate

    @property
    def moments(self) -> Sequence[Moment]:
        return self.record.moments


Rule = Callable[[Seen], str | None]


def judge(record: ProbeRecord, times: Times | None) -> tuple[Verdict, tuple[str, ...]]:
    """Whether the times can be trusted, and every reason why not."""
    if record.facts.emulated is not None:
        return "functional-only", (f"emulated ({record.facts.emulated}): its time says nothing of a device",)
    if times is None:
        return "functional-only", ("no times were taken",)
    seen = Seen(record, times)
    reasons = tuple(reason for rule in RULES if (reason := rule(seen)))
    return ("indicative" if reasons else "trusted"), reasons


def _governor(seen: Seen) -> str | None:
    known = {name for moment in seen.moments for name in moment.governors}
    if not known:
        return "the frequency governor is not known"
    loose = sorted(known - FIXED_GOVERNORS)
    return f"the frequency governor is {', '.join(loose)}, not performance" if loose else None


def _frequency(seen: Seen) -> str | None:
    """The share of the fastest domain, the one that works: others may idle."""
    shares = [max(now / most for now, most in zip(m.mhz, m.max_mhz, strict=True) if most)
              for m in seen.moments if m.mhz and len(m.mhz) == len(m.max_mhz) and all(m.max_mhz)]  # fmt: skip
    if not shares:
        return "the frequency is not known"
    return f"the frequency fell to {min(shares):.0%} of what it can be" if min(shares) < LEAST_SPEED else None


def _throttling(seen: Seen) -> str | None:
    bits = 0
    for moment in seen.moments:
        bits |= (moment.throttled or 0) & NOW_BITS
    names = [name for bit, name in THROTTLED.items() if bits & bit]
    return f"the board reported {' and '.join(names)}" if names else None


THROTTLED = {1: "under-voltage", 2: "a capped frequency", 4: "throttling", 8: "a temperature limit"}


def _temperature(seen: Seen) -> str | None:
    return None if any(m.celsius is not None for m in seen.moments) else "the temperature is not known"


def _pressure(seen: Seen) -> str | None:
    known = [m.pressure for m in seen.moments if m.pressure is not None]
    if not known:
        load = seen.moments[0].load if seen.moments else None
        return None if load is not None and load < 0.5 else "whether other programs ran is not known"
    return f"other programs waited for a core {max(known):.0f} % of the time" if known[0] > MOST_PRESSURE else None


def _swap(seen: Seen) -> str | None:
    used = [m.swap_mb for m in seen.moments if m.swap_mb is not None]
    return f"{max(used) - used[0]:.0f} MB were swapped out" if used and max(used) - used[0] > 1 else None


def _enough(seen: Seen) -> str | None:
    sides = [seen.side, *filter(None, (seen.record.against,))]
    seconds = sum(ms for side in sides for repeat in side.samples_ms for ms in repeat) / 1000
    if seen.times.n >= ENOUGH_SAMPLES and seconds >= 0.95 * ENOUGH_SECONDS:  # 5 % may go by between invocations
        return None
    return f"few: {seen.times.n} samples in {seconds:.0f} s, {ENOUGH_SAMPLES} in {ENOUGH_SECONDS:.0f} s are wanted"


def _repeats(seen: Seen) -> str | None:
    medians = seen.times.repeats_p50
    if len(medians) < ENOUGH_REPEATS:
        return f"{len(medians)} repetitions, {ENOUGH_REPEATS} are wanted"
    apart = max(medians) / min(medians) - 1
    return f"the medians of the repetitions are {apart:.0%} apart" if apart > MOST_APART else None


def _retention(seen: Seen) -> str | None:
    kept = seen.times.retention
    return f"it slowed down to {kept:.0%} of its speed" if kept < LEAST_RETENTION else None


def _spread(seen: Seen) -> str | None:
    spread = seen.times.p90 / seen.times.p50
    return f"noisy: p90 is {spread:.2f}x the median" if spread > MOST_SPREAD else None


def _warm(seen: Seen) -> str | None:
    cold = sum(not warm for warm in seen.side.warm)
    return f"times had not settled before {cold} of {len(seen.side.warm)} repetitions" if cold else None


def _engine(seen: Seen) -> str | None:
    """A .tflite that fell back to the runtime's own kernels is slow for a reason that is not the board's."""
    if seen.side.engine != "onnxruntime" and seen.side.delegate is None:
        return "no delegate was applied: XNNPACK took no part of the graph"
    return None


RULES: tuple[Rule, ...] = (
    _governor, _frequency, _throttling, _temperature, _pressure, _swap, _enough, _repeats, _retention, _spread, _warm,
    _engine,
)  # fmt: skip
"""Each gives a reason to doubt the times, or None. A reason makes the result indicative."""
