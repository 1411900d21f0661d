"""One metric of two sides, with the bounds a gate looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from shrink.bench.latency import Ratio
from shrink.compare.gates import LEVEL, Estimate
from shrink.compare.sides import Side
from shrink.report.text import milliseconds, percent, size
from shrink.runs.pairing import pair
from shrink.verify.exact import surely_below
from shrink.verify.statistics import mcnemar_exact, paired_interval

ONE_SIDED = 0.90  # two-sided, so that each end is a one-sided 95 % bound


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a metric cannot be compared."""

    why: str
    fix: str
    is_unlike: bool = False  # the sides are from unlike conditions; it can be forced


def drop(old: Side, new: Side, limit: float | None) -> Estimate | Missing:
    """Points of top-1 from old to new, on the same images.

    Args:
        limit: of the gate, in points; the upper bound is then at most it only if the exact test agrees.
    """
    if old.answers is None or new.answers is None:
        missing = old.run if old.answers is None else new.run
        return Missing(f"{missing} has no predictions", "export it again with this version of shrink")
    rows = pair(old.answers.images, new.answers.images)
    labels = old.answers.images.labels
    before, now = old.answers.top1 == labels, new.answers.top1[rows] == labels
    lost, won, n = int((before & ~now).sum()), int((~before & now).sum()), len(labels)
    low, high = (100 * end for end in paired_interval(lost, won, n, confidence=ONE_SIDED))
    if limit is not None and high <= limit and surely_below(lost, won, n, limit / 100) > LEVEL:
        high = np.nextafter(limit, np.inf)
    notes = (f"{lost} images lost and {won} won of {n:,}; McNemar p {mcnemar_exact(lost, won):.2g}",)
    return Estimate(100 * (lost - won) / n, low, float(high), percent(before.mean()), percent(now.mean()), notes)


def file_size(old: Side, new: Side, _: float | None) -> Estimate | Missing:
    """Bytes, exactly."""
    return _exact(old.size_bytes, new.size_bytes, size(old.size_bytes), size(new.size_bytes))


def latency(old: Side, new: Side, _: float | None) -> Estimate | Missing:
    """Time of an inference: by what both took turns with, else by their medians."""
    if old.speed is None or new.speed is None:
        missing = old if old.speed is None else new
        return Missing(f"{missing.run} has no times of {missing.target}", "measure it on a real machine")
    figures = milliseconds(old.speed.median_ms), milliseconds(new.speed.median_ms)
    notes = tuple(f"the times of {side.run} are {side.doubt}" for side in (old, new) if side.doubt)
    a, b = old.speed, new.speed
    if a.ratio is not None and b.ratio is not None and a.yardstick == b.yardstick:
        notes = (*notes, "by the times of both over the same float file, each in turns with it")
        return Estimate(b.ratio.median / a.ratio.median, b.ratio.low / a.ratio.high, b.ratio.high / a.ratio.low,
                        *figures, notes)  # fmt: skip
    notes = (*notes, "by medians of two moments, not in turns: --measure runs both now")
    return Estimate(b.median_ms / a.median_ms, b.low_ms / a.high_ms, b.high_ms / a.low_ms, *figures, notes)


def measured(ratio: Ratio, old_ms: float, new_ms: float) -> Estimate:
    """Time of an inference, of both files in turns on this machine."""
    notes = ("both were run in turns on this machine just now",)
    return Estimate(ratio.median, ratio.low, ratio.high, milliseconds(old_ms), milliseconds(new_ms), notes)


def instructions(old: Side, new: Side, _: float | None) -> Estimate | Missing:
    """Instructions of the part of the work where they grew most."""
    if old.instructions is None or new.instructions is None:
        missing = old.run if old.instructions is None else new.run
        return Missing(f"{missing} has no instruction counts", "compare results of shrink bench --on qemu:...")
    both = [name for name in old.instructions if new.instructions.get(name) and old.instructions[name]]
    if not both:
        return Missing("the two count no part of the work in common", "measure both with the same version of shrink")
    before, now = old.instructions, new.instructions
    worst = max(both, key=lambda name: now[name] / before[name])
    words = (f"{before[worst] / 1e6:.3f} M", f"{now[worst] / 1e6:.3f} M")
    return _exact(before[worst], now[worst], *words, note=f"of {worst}, which grew most")


def _exact(old: float, new: float, old_words: str, new_words: str, note: str = "") -> Estimate | Missing:
    if not old:
        return Missing("the old one is 0", "compare with another run")
    return Estimate(new / old, new / old, new / old, old_words, new_words, (note,) if note else ())


ESTIMATES: Mapping[str, Callable[[Side, Side, float | None], Estimate | Missing]] = {
    "drop": drop,
    "size": file_size,
    "latency": latency,
    "instructions": instructions,
}
"""Metric -> how it is found."""

MACHINE = frozenset({"latency", "instructions"})
"""Metrics that are of one machine: those of unlike ones are not compared unless forced."""
