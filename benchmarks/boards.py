"""Measuring on boards: counts as a gate, a lost link, and the answers of an emulated ARM against those of this machine.

Example: python -m benchmarks.boards --only planted --run out/demo/cnn
Needs `shrink board setup qemu`, and an export's directory with the targets that are asked for; `cuts` adb and ssh.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import report
from benchmarks.facts import ROOT
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import RESULTS, Setting, Store

RUN = ROOT / "out" / "demo" / "cnn"


def main(
    only: Annotated[list[str] | None, typer.Option(help="planted, cuts or parity; repeatable.")] = None,
    run: Annotated[Path, typer.Option(help="What `shrink export` wrote.")] = RUN,
    scale: Annotated[float, typer.Option(help="Do so much of the full amount, 0 to 1.")] = 1.0,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
) -> None:
    """Measure the promises; exit 1 if one is broken."""
    if not (run / "report.json").is_file():
        raise typer.BadParameter(f"there is no run at {run}: run `make demo`, or name one with --run")
    sys.path[:0] = [str(ROOT / "tests" / part) for part in ("boards", "device_runner")]
    names = only or list(ROWS)
    settings: dict[str, dict[str, Setting]] = {name: {"scale": scale} for name in names}
    measures = {name: partial(measure, name, run.resolve(), scale) for name in names}
    failed = run_rows(Store("boards", results), measures, settings, Again(again or bool(only)))
    report.write(results)
    raise typer.Exit(bool(failed))


def measure(name: str, run: Path, scale: float, scratch: Path) -> Measured:
    """One row: the figures, and the promises they break."""
    found: Measured = import_module(ROWS[name]).measure(run, scale, scratch)
    return found


ROWS = {
    "planted": "benchmarks.onboard.planted",
    "cuts": "benchmarks.onboard.cuts",
    "parity": "benchmarks.onboard.parity",
}

if __name__ == "__main__":
    typer.run(main)
