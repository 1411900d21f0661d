"""Where a frame lies while the model's process looks at it: memory of both, written by the runner alone.

A camera's raw frame is a megabyte; through a pipe it would be copied four times, 64 KiB at a time.
"""

from __future__ import annotations

import mmap
import os

LEAST_BYTES = 1 << 20
SLACK = 16  # a slot this many times larger than its frame is given back


class Slot:
    """The writing side. It holds one frame; the next one takes its place."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("frame")
        self._memory: mmap.mmap | None = None

    def put(self, data: bytes) -> int:
        """Lay a frame down; the size of the slot in bytes, which the reading side must know.

        Raises:
            OSError: there is not so much memory.
        """
        if self._memory is None or not len(data) <= len(self._memory) <= max(SLACK * len(data), LEAST_BYTES):
            self._resize(max(2 * len(data), LEAST_BYTES))  # pages that are not written to cost nothing
        assert self._memory is not None
        self._memory[: len(data)] = data
        return len(self._memory)

    def _resize(self, size: int) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, size)
        self._memory = mmap.mmap(self.fd, size)

    def close(self) -> None:
        """Give the memory back."""
        if self._memory is not None:
            self._memory.close()
        os.close(self.fd)


class SlotView:
    """The reading side."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._memory: mmap.mmap | None = None

    def get(self, length: int, size: int) -> memoryview:
        """The frame of `length` bytes in a slot of `size` bytes; valid until the next request."""
        if self._memory is None or len(self._memory) != size:
            self._memory = mmap.mmap(self._fd, size, access=mmap.ACCESS_READ)
        return memoryview(self._memory)[:length]
