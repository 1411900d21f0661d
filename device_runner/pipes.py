"""Messages from a pipe, waited for no longer than told."""

from __future__ import annotations

import os
import select

from device_runner.clock import MS, monotonic_ns
from device_runner.frames import take

CHUNK = 1 << 16


class TooSlow(Exception):  # noqa: N818 - not an error by itself: the caller says what it means
    """The other side did not speak in time."""


class Inbox:
    """The reading end of a pipe; the only reader."""

    def __init__(self, fd: int) -> None:
        self._fd, self._buffer, self._poll = fd, bytearray(), select.poll()
        self._poll.register(fd, select.POLLIN)

    def next(self, deadline_ns: int) -> bytes | None:
        """The next message; None when the other side is gone.

        Raises:
            TooSlow: it is not there at the deadline.
            ValueError: its length is beyond all reason.
        """
        while (body := take(self._buffer)) is None:
            left_ns = deadline_ns - monotonic_ns()
            if left_ns <= 0 or not self._poll.poll(left_ns / MS):
                raise TooSlow
            part = os.read(self._fd, CHUNK)  # there is something: it does not wait
            if not part:
                return None
            self._buffer += part
        return body
