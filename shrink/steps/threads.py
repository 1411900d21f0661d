"""Images run side by side, one thread each.

Threads within an op wait for each other at its end, and on a busy machine that is most of the time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

MOST_WORKERS = 8  # each holds the activations of one image


def one_thread_per_op() -> AbstractContextManager[None]:
    """Let PyTorch use one thread within an op while the block runs."""
    return threads_per_op(1)


@contextlib.contextmanager
def threads_per_op(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads within an op while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def workers() -> int:
    """How many images to run side by side: the processors this process may use, at most `MOST_WORKERS`."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return min(len(allowed), MOST_WORKERS)
