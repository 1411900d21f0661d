"""Measuring on boards: counts as a gate, a lost link, and the answers of an emulated ARM against those of this machine.

Example: python -m benchmarks.boards --only planted --run out/demo/cnn
Needs `shrink board setup qemu`, and an export's directory with the targets that are asked for; `cuts` adb and ssh.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.facts import ROOT
from benchmarks.loop import Again, known
from benchmarks.promised import run_promises, use_helpers_of
from benchmarks.rows import RESULTS, Store

RUN = ROOT / "out" / "demo" / "cnn"


def main(
    only: Annotated[list[str] | None, typer.Option(help="planted, cuts, parity or old_runtime; repeatable.")] = None,
    run: Annotated[Path, typer.Option(help="What `shrink export` wrote.")] = RUN,
    scale: Annotated[float, typer.Option(help="Do so much of the full amount, 0 to 1.")] = 1.0,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
) -> None:
    """Measure the promises; exit 1 if one is broken."""
    if not (run / "report.json").is_file():
        raise typer.BadParameter(f"there is no run at {run}: run `make demo`, or name one with --run")
    use_helpers_of(("boards", "device_runner"))
    asked = {name: ROWS[name] for name in known(only or [*ROWS], ROWS, "row")}
    failed = run_promises(Store("boards", results), asked, run, scale, Again(again or bool(only)))
    raise typer.Exit(bool(failed))


ROWS = {
    "planted": "benchmarks.onboard.planted",
    "cuts": "benchmarks.onboard.cuts",
    "parity": "benchmarks.onboard.parity",
    "old_runtime": "benchmarks.onboard.old_runtime",
}

if __name__ == "__main__":
    typer.run(main)
