"""Child processes: started without a shell, ended for sure, and never left behind."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def start(
    argv: Sequence[str], *, stdin: int | None = None, stdout: int | None = None, keep: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; stderr is ours.

    Args:
        argv: program and arguments.
        stdin: a descriptor; None: nothing to read.
        stdout: a descriptor; None: goes to our stderr.
        keep: descriptors that the child inherits under the same numbers.
    """
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=2 if stdout is None else stdout,
        pass_fds=tuple(keep),
        start_new_session=True,
    )


def end(child: subprocess.Popen[bytes], grace_s: float = 0.0) -> None:
    """End a child and all it started; it has `grace_s` to leave by itself, then none."""
    if grace_s > 0 and child.poll() is None:
        with suppress(ProcessLookupError):
            child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # its session: also what outlived it
    child.wait()


def die_with_parent() -> None:
    """Called in a child: the kernel kills it when its parent is gone, however that went."""
    with suppress(OSError, AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_memory(size_bytes: int) -> None:
    """Called in a child: at most so much address space, so that a bomb ends the child and not the device."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = min(size_bytes, sys.maxsize if hard == resource.RLIM_INFINITY else hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
