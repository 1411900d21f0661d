"""Alerts that wait for delivery: one small file each, in order, within a quota, through power loss.

An alert is in the spool when `add` returns, and leaves it only after it was delivered, or as the oldest when the quota
is full; then it counts as evicted. File names are numbers, never anything from a label.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

MAX_FILES = 10_000


class Alert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is delivered, as JSON. A receiver that drops ids it has seen gets each alert once."""

    schema: Literal[1] = 1
    id: str
    device: str
    action: str
    rule: str
    label: str
    confidence: float
    wall: float  # when it fired, seconds since 1970 as the device believed
    seq: int  # of the frame
    model: str  # sha256 of the bundle's manifest


class Spool:
    """A directory of waiting alerts. Safe to use from several threads."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max = folder, max_bytes
        self._lock = threading.Lock()
        self.evicted = 0
        self.failed = 0  # alerts that could not be written
        with suppress(OSError):  # a disk that is read-only or full: `add` will say so
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*.tmp"):  # of an interrupted write
                path.unlink()
        stored = ((int(p.stem), p.stat().st_size) for p in folder.glob("*.json") if p.stem.isdigit())
        self._sizes = dict(sorted(stored))  # number -> bytes, the oldest first
        self._next = max(self._sizes, default=0) + 1  # never used twice, so that `done` means one alert

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def size_bytes(self) -> int:
        """Of all files that wait."""
        with self._lock:
            return sum(self._sizes.values())

    def add(self, alert: Alert) -> bool:
        """Keep an alert; False: it could not be written, even after the oldest made room."""
        data = msgspec.json.encode(alert)
        with self._lock:
            self._make_room(len(data))
            while True:
                try:
                    self._write(self._next, data)
                    self._next += 1
                except OSError:
                    if self._evict():  # a full disk: the oldest alert gives way to the newest
                        continue
                    self.failed += 1
                    return False
                return True

    def _make_room(self, need: int) -> None:
        while self._sizes and (sum(self._sizes.values()) + need > self._max or len(self._sizes) >= MAX_FILES):
            self._evict()

    def _evict(self) -> bool:
        if not self._sizes:
            return False
        self._remove(next(iter(self._sizes)))
        self.evicted += 1
        return True

    def _write(self, number: int, data: bytes) -> None:
        path = self._path(number)
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(self._folder)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self._sizes[number] = len(data)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016d}.json"

    def waiting(self) -> list[int]:
        """The numbers of all alerts, the oldest first."""
        with self._lock:
            return list(self._sizes)

    def read(self, number: int) -> Alert | None:
        """One alert; None if it was evicted, or is damaged: then it is dropped."""
        try:
            return msgspec.json.decode(self._path(number).read_bytes(), type=Alert)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError):
            self.done(number)
            return None

    def done(self, number: int) -> None:
        """The alert was delivered."""
        with self._lock:
            self._remove(number)

    def _remove(self, number: int) -> None:
        self._sizes.pop(number, None)
        with suppress(OSError):
            self._path(number).unlink(missing_ok=True)


def sync_directory(folder: Path) -> None:
    """Make renames in a directory last through a power loss."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
