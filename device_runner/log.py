"""What the runner tells people, on stderr: few lines, no line driving the terminal, no password."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from device_runner.clock import SECOND, monotonic_ns
from device_runner.sources.grammar import redact
from device_runner.text import printable_lines

QUIET_S = 60.0  # the same line again within this time is only counted
MAX_TOPICS = 64


class Log:
    """Lines on a stream. A line that repeats is written once a minute, with how often it came."""

    def __init__(self, stream: TextIO, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self._stream, self._now_ns = stream, now_ns
        self._seen: dict[str, tuple[int, int]] = {}  # line -> (when written, left out since)

    def say(self, text: str) -> None:
        """Write one line."""
        line, now = printable_lines(redact(text)), self._now_ns()
        written, left_out = self._seen.get(line, (None, 0))
        if written is not None and now - written < QUIET_S * SECOND:
            self._seen[line] = (written, left_out + 1)
            return
        if len(self._seen) >= MAX_TOPICS:
            self._seen.clear()
        self._seen[line] = (now, 0)
        with suppress(OSError, ValueError):  # nobody reads: no reason to stop
            self._stream.write(f"{line}{f' (and {left_out} times more)' if left_out else ''}\n")
            self._stream.flush()
