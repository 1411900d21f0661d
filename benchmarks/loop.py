"""Runs the rows of a benchmark one after the other, and writes each as soon as it is done."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from benchmarks import facts
from benchmarks.rows import Failure, Row, Setting, Store


@dataclass(frozen=True, slots=True)
class Measured:
    """What one row found."""

    result: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    peak_mib: float = 0.0
    notes: tuple[str, ...] = ()  # to show when it is done; not kept


Measure = Callable[[Path], Measured]
"""Measures a row, given an empty directory that is removed afterwards."""


@dataclass(frozen=True, slots=True)
class Again:
    """Which rows that are already there are measured again."""

    every: bool = False  # all of them
    any_code: bool = False  # keep also rows of another state of the sources


def run_rows(
    store: Store, rows: Mapping[str, Measure], settings: Mapping[str, dict[str, Setting]], again: Again
) -> int:
    """Measure the rows that are not there yet; returns how many failed."""
    signal.signal(signal.SIGTERM, _leave)
    failed = 0
    for number, (name, measure) in enumerate(rows.items(), start=1):
        conditions = facts.conditions()
        if not again.every and store.is_current(name, conditions, settings[name], any_code=again.any_code):
            typer.echo(f"[{number}/{len(rows)}] {name}: already measured, kept")
            continue
        row, notes = measure_row(store.benchmark, name, measure, conditions, settings[name])
        store.save(row)
        failed += row.failure is not None
        end = f"FAILED: {row.failure}" if row.failure else "done"
        busy = f", others kept {row.others_busy:.1f} cores busy" if row.others_busy > facts.BUSY else ""
        typer.echo(f"[{number}/{len(rows)}] {name}: {end} in {row.seconds:.0f} s, {row.peak_mib:.0f} MiB{busy}")
        for note in notes:
            typer.echo(f"    {note}")
    return failed


def known(names: list[str], all_: Collection[str], what: str) -> list[str]:
    """The names, if all are known.

    Raises:
        typer.BadParameter: one is not.
    """
    unknown = [name for name in names if name not in all_]
    if unknown:
        raise typer.BadParameter(f"unknown {what} {', '.join(unknown)}; known: {', '.join(all_)}")
    return names


def _leave(*_: object) -> None:
    """End as at the keyboard: children are taken along, scratch directories removed."""
    raise SystemExit(128 + signal.SIGTERM)


def measure_row(
    benchmark: str, name: str, measure: Measure, conditions: facts.Conditions, settings: dict[str, Setting]
) -> tuple[Row, tuple[str, ...]]:
    """One row with its conditions, and what to show of it."""
    date, start = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"shrink-{benchmark}-") as scratch, facts.watch_others() as others:
        measured = measure(Path(scratch))
    row = Row(
        benchmark=benchmark,
        name=name,
        date=date,
        conditions=conditions,
        settings=settings,
        seconds=round(time.monotonic() - start, 2),
        peak_mib=measured.peak_mib,
        others_busy=others.busy,
        failure=measured.failure,
        result=measured.result,
    )
    return row, measured.notes
