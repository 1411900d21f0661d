"""Why an action fired, or did not: one JSON line per decision, each enough to take the decision again.

A record holds what the rule remembered before the frame, what it saw, its verdict, and what it remembers after;
`replay` decides again and compares. A quiet camera writes nothing: a verdict is recorded when it is `fired` or another
than the one before (or always, with `audit_every`), and `quiet` says how many were left out in between.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from device_runner.config.parts import Rule
from device_runner.rules import FIRED, Memory, Sight, decide

NAME = "audit.jsonl"
FILES = 4  # the quota is shared by so many files, of which the oldest is dropped whole


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One decision of one rule."""

    schema: Literal[1] = 1
    boot: str  # times below are of this boot
    seq: int  # of the frame, since the runner started
    wall: float  # seconds since 1970, as the device believed
    frame: str  # name of the frame's file, or empty
    frame_sha256: str
    model: str  # sha256 of the bundle's manifest
    rule: Rule
    before: Memory
    sight: Sight  # reduced to the rule's label
    verdict: str
    after: Memory
    quiet: int  # frames since the last record of this rule
    dry_run: bool
    id: str  # of the action, if one was taken; names the message everywhere


class Audit:
    """Decides what is recorded, and writes it, within a quota."""

    def __init__(self, folder: Path | None, max_bytes: int, every: bool = False) -> None:
        self._folder, self._file_bytes, self._every = folder, max_bytes // FILES, every
        self._last: dict[str, tuple[str, int]] = {}  # rule -> (verdict, quiet frames since)
        self.failed = 0  # records that could not be written

    def is_due(self, rule: str, verdict: str) -> tuple[bool, int]:
        """Whether to record this verdict, and how many frames were quiet since the last record."""
        last, quiet = self._last.get(rule, ("", 0))
        due = self._every or verdict == FIRED or verdict != last
        self._last[rule] = (verdict, 0 if due else quiet + 1)
        return due, quiet

    def write(self, record: Record) -> bool:
        """Append one record; on disk when this returns if it is a fire. False: it could not be written."""
        if self._folder is None:
            return False
        try:
            self._append(msgspec.json.encode(record) + b"\n", sync=record.verdict == FIRED)
        except OSError:
            self.failed += 1
            return False
        return True

    def _append(self, line: bytes, sync: bool) -> None:
        assert self._folder is not None
        path = self._folder / NAME
        with suppress(FileNotFoundError):
            if path.stat().st_size + len(line) > self._file_bytes:
                rotate(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            written = os.write(fd, line)
            if written < len(line):  # the disk is full: no half record stays
                os.ftruncate(fd, os.fstat(fd).st_size - written)
                raise OSError("the disk is full")
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)


def rotate(path: Path) -> None:
    """audit.jsonl -> audit.jsonl.1 -> ... ; the oldest is dropped."""
    for i in range(FILES - 1, 0, -1):
        source = path if i == 1 else path.with_name(f"{path.name}.{i - 1}")
        with suppress(FileNotFoundError):
            source.replace(path.with_name(f"{path.name}.{i}"))


def read(path: Path) -> Iterator[Record]:
    """The records of a file; a line cut by a power loss at its end is left out.

    Raises:
        msgspec.MsgspecError: another line is no record.
    """
    lines = path.read_bytes().split(b"\n")
    for line in lines[:-1]:  # what follows the last line break is cut
        if line:
            yield msgspec.json.decode(line, type=Record)


def replay(record: Record) -> str | None:
    """Decide again; None if verdict and memory are the recorded ones, else the difference."""
    verdict, after = decide(record.rule, record.before, record.sight)
    if verdict != record.verdict:
        return f"verdict {verdict}, recorded {record.verdict}"
    return None if after == record.after else "the rule remembers something else after"


def sha256(data: bytes) -> str:
    """Of a frame's bytes."""
    return hashlib.sha256(data).hexdigest()
