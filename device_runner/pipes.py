"""Reads and writes on pipes that never wait longer than told."""

from __future__ import annotations

import os
import select
from contextlib import suppress

from device_runner.clock import MS, monotonic_ns

CHUNK = 1 << 20


class TooSlow(Exception):  # noqa: N818 - not an error by itself: the caller says what it means
    """The other side did not move in time."""


def _wait(poll: select.poll, deadline_ns: int) -> None:
    left = deadline_ns - monotonic_ns()
    if left <= 0 or not poll.poll(left / MS):
        raise TooSlow


def write_all(fd: int, data: bytes, deadline_ns: int) -> None:
    """Write everything to a non-blocking descriptor.

    Raises:
        TooSlow: not done at the deadline; a part may have been written.
        OSError: the other side is gone.
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    view = memoryview(data)
    while view:
        with suppress(BlockingIOError):
            view = view[os.write(fd, view[:CHUNK]) :]
            continue
        _wait(poll, deadline_ns)


def read_exact(fd: int, n: int, deadline_ns: int) -> bytes:
    """Read n bytes of a non-blocking descriptor; fewer at its end.

    Raises:
        TooSlow: they are not there at the deadline.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    parts = bytearray()
    while len(parts) < n:
        with suppress(BlockingIOError):
            part = os.read(fd, min(n - len(parts), CHUNK))
            if not part:
                break
            parts += part
            continue
        _wait(poll, deadline_ns)
    return bytes(parts)
