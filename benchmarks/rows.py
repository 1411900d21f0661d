"""Results as data: one JSON file per row, so that a row is replaced alone and a killed run keeps what it finished.

results/<benchmark>/<row>.json, written whole or not at all.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchmarks.facts import Conditions

RESULTS = Path(__file__).with_name("results")
Setting = str | int | float | bool | None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why something has no number: the three lines of an error."""

    what: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  fix: {self.fix}"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a benchmark, with everything needed to believe or repeat it."""

    schema: Literal[1] = 1
    benchmark: str
    name: str
    date: str  # ISO 8601, UTC
    conditions: Conditions
    settings: dict[str, Setting]  # what the command was asked for
    seconds: float  # wall time of the whole row
    peak_mib: float  # largest resident set of the row's process or of one of its children
    others_busy: float  # cores' worth of work that other processes did meanwhile
    failure: Failure | None = None
    result: dict[str, Any]  # raw measurements; the tables derive the rest


@dataclass(frozen=True, slots=True)
class Store:
    """The rows of one benchmark."""

    benchmark: str
    root: Path = RESULTS

    def path(self, name: str) -> Path:
        """Where a row lies."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"{name!r} cannot be the name of a row")
        return self.root / self.benchmark / f"{name}.json"

    def load(self, name: str) -> Row | None:
        """A row, or None if it was never finished."""
        try:
            return msgspec.json.decode(self.path(name).read_bytes(), type=Row)
        except FileNotFoundError:
            return None

    def all(self) -> list[Row]:
        """Every finished row, by name."""
        names = sorted(path.stem for path in (self.root / self.benchmark).glob("*.json"))
        return [row for name in names if (row := self.load(name)) is not None]

    def save(self, row: Row) -> None:
        """Put a row in place of the one of that name, if any."""
        write_whole(self.path(row.name), encode(row))

    def is_current(self, name: str, conditions: Conditions, settings: dict[str, Setting], *, any_code: bool) -> bool:
        """Whether a finished row answers the same question: same settings, and the same code of shrink."""
        row = self.load(name)
        return row is not None and row.settings == settings and (any_code or row.conditions.code == conditions.code)


def encode(value: object) -> bytes:
    """JSON that a person can read and git can compare: keys on lines of their own, lists of numbers on one."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
    numbers = r"-?\d[\d.eE+-]*"
    return (
        re.sub(
            rf"\[\s*({numbers}(?:,\s*{numbers})*)\s*\]",
            lambda found: "[" + re.sub(r"\s+", "", found[1]).replace(",", ", ") + "]",
            text,
        ).encode()
        + b"\n"
    )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that, after a kill at any moment, is what it was before or complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
