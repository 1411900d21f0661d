"""The one place that asks what time it is.

Every interval is of `monotonic_ns`, which no network ever sets. The wall clock is written down for people, and decides
only the hours of rules that have some: a board without a battery starts in 1970 and jumps when it hears a better time.
"""

from __future__ import annotations

import time
from pathlib import Path

SECOND = 1_000_000_000
MS = 1_000_000
RELEASED = 2026  # the clock is not set where it says an earlier year


def monotonic_ns() -> int:
    """Nanoseconds since some moment of this boot."""
    return time.monotonic_ns()


def wall_s() -> float:
    """Seconds since 1970 as the device believes; decides nothing."""
    return round(time.time(), 3)


def minute_of_week() -> int | None:
    """0..10079 of the local week, which begins on Monday; None while the clock is not set."""
    now = time.localtime()
    return None if now.tm_year < RELEASED else (now.tm_wday * 24 + now.tm_hour) * 60 + now.tm_min


def boot_id() -> str:
    """Names this boot: monotonic times of two boots must not be compared."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
