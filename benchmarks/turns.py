"""Two runs of a benchmark share a machine: both make files, and one that takes times stops the other meanwhile.

Every run that joins a folder has a file there, named for its process and locked as long as it lives; the right to take
times is a lock beside them. Linux only, as /proc tells which children a process has.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def joined(folder: Path) -> Iterator[None]:
    """Be one of the runs that can be stopped, until the end; nobody joins while times are taken."""
    with _turn(folder):
        file = (folder / str(os.getpid())).open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
    with file:
        try:
            yield
        finally:
            Path(file.name).unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Stop the others, with their children; one at a time does so.

    A process that a run started may take the times for it: neither it nor the run is stopped.
    """
    with _turn(folder):
        _signal(folder, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(folder, signal.SIGCONT)


def release(folder: Path) -> None:
    """Let all go on, after one may have been killed while it had stopped the others."""
    with _turn(folder):
        _signal(folder, signal.SIGCONT)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "turn").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _signal(folder: Path, what: signal.Signals) -> None:
    for path in folder.glob("[0-9]*"):
        if int(path.name) not in (os.getpid(), os.getppid()) and _lives(path):
            for pid in with_children(int(path.name)):
                with suppress(ProcessLookupError):
                    os.kill(pid, what)


def _lives(path: Path) -> bool:
    """Whether the run that made this file still holds it: its number may be another process's by now."""
    try:
        with path.open("rb") as file:
            return not _free(file)
    except FileNotFoundError:
        return False


def _free(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def with_children(pid: int) -> Iterator[int]:
    """A process and all that it started, parents first; a parent may be stopped before its children are asked for."""
    yield pid
    try:
        texts = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return
    for child in " ".join(texts).split():
        yield from with_children(int(child))
