"""Marks the parts of the work for an emulator that counts instructions.

A close of a file descriptor that cannot exist is a system call that the kernel refuses and an emulator's plugin
sees: START + k begins part k, STOP + k ends it. On a real machine it costs a microsecond and does nothing.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

START, STOP = 0x5AFE0000, 0x5AFF0000
PARTS = ("preprocess", "invoke", "postprocess")
"""Number k names part k."""


def marked(part: str, work: Callable[[], T]) -> T:
    """Do the work as that part."""
    number = PARTS.index(part)
    _close(START + number)
    try:
        return work()
    finally:
        _close(STOP + number)


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """No garbage collection meanwhile: when one comes depends on all that was done before."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # EBADF, always
        os.close(descriptor)
