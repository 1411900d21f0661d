"""Run a command in a process of its own, under limits, and account for what it took."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import Failure

GIB = 1 << 30
PR_SET_PDEATHSIG = 1  # of prctl


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int  # exit code; -9 if signal 9 ended it
    seconds: float  # wall time
    peak_mib: float  # largest resident set of it or of one of its descendants
    timed_out: bool
    out: str  # standard output
    err: str  # standard error
    cpu_seconds: float = 0.0  # of it and of those of its descendants that it waited for


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    scratch: Path,
    limit_seconds: float,
    memory_gib: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run to the end or to the limit; a command that starts children takes them along when it is ended.

    Args:
        command: argv.
        cwd: where to run it.
        scratch: existing directory for its output.
        limit_seconds: wall time after which it is killed.
        memory_gib: bound of its address space; None leaves it free.
        env: added to the environment.
    """

    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bound() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it does not outlive us
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_gib is not None:
            resource.setrlimit(resource.RLIMIT_AS, (int(memory_gib * GIB),) * 2)

    names = [scratch / "stdout", scratch / "stderr"]
    with names[0].open("wb") as out, names[1].open("wb") as err:
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            preexec_fn=bound,
            start_new_session=True,
        )
        late = threading.Event()

        def kill() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):  # it ended at this moment
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit_seconds, kill)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
    told, complained = (name.read_text(errors="replace") for name in names)
    peak, cpu = round(usage.ru_maxrss / 1024, 1), round(usage.ru_utime + usage.ru_stime, 1)
    return Ended(process.returncode, round(seconds, 3), peak, late.is_set(), told, complained, cpu)


def failure(ended: Ended, command: str) -> Failure | None:
    """Why a command did not end well, in three lines; None for exit code 0.

    The lines of our own errors are found in standard error; anything else is a crash.
    """
    if ended.timed_out:
        return Failure(what=f"{command} was stopped", why=f"it ran past {ended.seconds:.0f} s", fix="raise its limit")
    if ended.code == 0:
        return None
    lines = [line.strip() for line in ended.err.splitlines() if line.strip()]
    for index, line in enumerate(lines):
        if line.startswith("error: ") and "".join(lines[index + 1 : index + 2]).startswith("why: "):
            fix = lines[index + 2].removeprefix("fix: ") if index + 2 < len(lines) else ""
            return Failure(what=line.removeprefix("error: "), why=lines[index + 1].removeprefix("why: "), fix=fix)
    how = f"signal {signal.Signals(-ended.code).name}" if ended.code < 0 else f"exit code {ended.code}"
    return Failure(
        what=f"{command} crashed: {how}", why=lines[-1][:300] if lines else "it said nothing", fix="run it by hand"
    )
