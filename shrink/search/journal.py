"""A study as a file of JSON lines that many processes append to, and that a kill at any moment leaves readable.

Optuna's own lock is a link that a killed process leaves behind, and a line that it wrote by half would make the
next one unreadable. Here the kernel drops the lock with the process, and the next writer cuts off half a line.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from shrink.errors import DataError

LOCK = ".lock"


class Journal(JournalFileBackend):
    """Optuna's file, but for the way it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records behind whatever was written whole."""
        lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        with _locked(self._path):
            drop_half_line(self._path)
            with self._path.open("ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel lets the next one in when this one ends, however that is."""
    descriptor = os.open(f"{path}{LOCK}", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def drop_half_line(path: Path) -> None:
    """Cut off what a killed writer left without a line end; the lock is held."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return
        back = min(size, 1 << 16)
        while True:
            file.seek(size - back)
            found = file.read(back).rfind(b"\n")
            if found == back - 1:
                return
            if found >= 0 or back == size:
                file.truncate(size - back + found + 1 if found >= 0 else 0)
                return
            back = min(size, 2 * back)


def whole_lines(path: Path) -> tuple[int, int]:
    """How many lines can be read, up to the first that cannot; and how many there are.

    Raises:
        DataError: the file cannot be read at all.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n")  # what follows the last line end is half a line, or nothing
    except OSError as error:
        raise DataError(f"the study {path} cannot be read", error.strerror or str(error), "check the path") from error
    good = next((number for number, line in enumerate(lines) if not _is_record(line)), len(lines))
    return good, len(lines)


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and isinstance(record.get("op_code"), int) and "worker_id" in record


def storage(path: Path) -> JournalStorage:
    """The study's file, which is made if there is none.

    Raises:
        DataError: a line of it is damaged; what is before it can be had with `head`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        good, every = whole_lines(path)
        if good < every:
            why = f"line {good + 1} of {every} is not a record, and those that follow build on it"
            fix = f"save what is before it, and go on with that: head -n {good} {path} > repaired.journal"
            raise DataError(f"the study {path} is damaged", why, fix)
    return JournalStorage(Journal(path))
