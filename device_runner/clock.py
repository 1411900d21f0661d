"""The one place that asks what time it is.

Every interval is of `monotonic_ns`, which no network ever sets. The wall clock is only written down for people: a
board without a battery starts in 1970 and jumps when it hears of a better time.
"""

from __future__ import annotations

import time
from pathlib import Path

SECOND = 1_000_000_000
MS = 1_000_000


def monotonic_ns() -> int:
    """Nanoseconds since some moment of this boot."""
    return time.monotonic_ns()


def wall_s() -> float:
    """Seconds since 1970 as the device believes; decides nothing."""
    return round(time.time(), 3)


def boot_id() -> str:
    """Names this boot: monotonic times of two boots must not be compared."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
