"""Keeps the chatter of converters, runtimes and models off the terminal, and keeps it for when something fails.

They write from C++ straight to file descriptors 1 and 2, so only the descriptors themselves can be turned aside.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

from shrink.errors import RequestError

STDOUT, STDERR = 1, 2


@contextlib.contextmanager
def chatter_aside() -> Iterator[TextIO]:
    """Send stdout and stderr to a file while the block runs.

    The file has no name, so nothing is left of it after a kill. If the block raises an error it is kept
    under a name, which is added to the error as a note; but not for a wrong request, which needs no log.

    Yields:
        The real stderr, to show progress on.
    """
    _flush()
    real = {descriptor: os.dup(descriptor) for descriptor in (STDOUT, STDERR)}
    with tempfile.TemporaryFile(prefix="shrink-") as log:
        try:
            for descriptor in real:
                os.dup2(log.fileno(), descriptor)
            with os.fdopen(os.dup(real[STDERR]), "w", buffering=1, encoding="utf-8", errors="replace") as terminal:
                yield terminal
        except RequestError:
            raise
        except Exception as error:
            _flush()
            if path := _keep(log):
                error.add_note(f"  log: {path}")
            raise
        finally:
            _flush()
            for descriptor, copy in real.items():
                os.dup2(copy, descriptor)
                os.close(copy)


def _flush() -> None:
    """Bring out what Python and the C library still hold, while the descriptors are those it was written for."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where it was closed before Python began
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


def _keep(log: IO[bytes]) -> Path | None:
    """A copy under a name; None of an empty log."""
    if not log.seek(0, os.SEEK_END):
        return None
    log.seek(0)
    with tempfile.NamedTemporaryFile(prefix="shrink-", suffix=".log", delete=False) as kept:
        shutil.copyfileobj(log, kept)
    return Path(kept.name)
