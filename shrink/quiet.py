"""Keeps the chatter of converters and runtimes off the terminal, and keeps it for when something fails.

They log from C++ straight to file descriptor 2, so only the descriptor itself can be turned aside.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def stderr_aside() -> Iterator[tuple[TextIO, Path]]:
    """Send stderr to a file while the block runs.

    Yields:
        The real stderr, to show progress on, and the file. The file is removed if the block ends
        well, and left for reading if it raises.
    """
    sys.stderr.flush()
    real = os.dup(2)
    descriptor, name = tempfile.mkstemp(prefix="shrink-", suffix=".log")
    log = Path(name)
    try:
        os.dup2(descriptor, 2)
        with os.fdopen(os.dup(real), "w", buffering=1, encoding="utf-8", errors="replace") as terminal:
            yield terminal, log
    except BaseException:
        _restore(real)
        raise
    else:
        _restore(real)
        log.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _restore(real: int) -> None:
    sys.stderr.flush()
    os.dup2(real, 2)
    os.close(real)
