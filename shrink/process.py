"""How a process that is one long computation treats the machine: it keeps freed memory, and its threads wait asleep."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # names of mallopt(3)
SPINS = "10000"  # some ten microseconds, in place of milliseconds


def settle() -> None:
    """To be called before the first tensor, and before torch is imported; of no effect where there is no glibc.

    Memory: a tensor of some hundred kilobytes or more is a mapping of its own in glibc, returned when it is freed, so
    that each operation touches fresh pages, which the system fills with zeros first. With the memory kept, MobileNetV2
    answers 1.9 times as fast in PyTorch (one image, one thread) and is trained 1.9 times as fast (32 images, two
    threads); the process is larger by a fifth at its peak.

    Threads: those of OpenMP wait for each other in a loop that keeps a processor busy, which is good for one process
    alone. Two such trainings side by side on two cores took 4.2 times as long as one; with short loops they take twice
    as long, and one alone takes what it took. Who sets GOMP_SPINCOUNT or OMP_WAIT_POLICY is left with it.
    """
    if (option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        option(MMAP_MAX, 0)
        option(TRIM_THRESHOLD, -1)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
