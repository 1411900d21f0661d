"""Memory that is free but still the process's own: it goes back to the system when a model has gone."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Collect what refers to itself, and let the C library return its free pages; takes tens of milliseconds.

    Once a block of some size was freed, glibc takes the next ones of that size, up to 32 MiB, from a heap that has
    holes afterwards (its threshold moves, see mallopt(3)); a model is such a block. Not every C library has
    `malloc_trim`.
    """
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
