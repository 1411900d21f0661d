"""device_runner in the field: does it keep what it promises when everything around it breaks?

Example: python -m benchmarks.runner --only rules
Needs `make demo` for the bundle; `soak`, `sinks` and `broker` mosquitto, `kills` strace, `sources` ffmpeg and ip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.facts import ROOT
from benchmarks.loop import Again, known
from benchmarks.promised import run_promises, use_helpers_of
from benchmarks.rows import RESULTS, Store

BUNDLE = ROOT / "out" / "demo" / "cnn" / "tflite-int8"


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help="rules, bundles, kills, costs, broker, sources, sinks, changes or soak; repeatable."),
    ] = None,
    bundle: Annotated[Path, typer.Option(help="A bundle of the demo.")] = BUNDLE,
    scale: Annotated[float, typer.Option(help="Do so much of the full amount, 0 to 1.")] = 1.0,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
) -> None:
    """Measure the runner's promises; exit 1 if one is broken."""
    if not bundle.is_dir():
        raise typer.BadParameter(f"there is no bundle at {bundle}: run `make demo`, or name one with --bundle")
    use_helpers_of(("device_runner",))
    asked = {name: ROWS[name] for name in known(only or [*ROWS], ROWS, "row")}
    failed = run_promises(Store("device_runner", results), asked, bundle, scale, Again(again or bool(only)))
    raise typer.Exit(bool(failed))


ROWS = {
    "rules": "benchmarks.field.rules",
    "bundles": "benchmarks.field.bundles",
    "kills": "benchmarks.field.kills",
    "costs": "benchmarks.field.costs",
    "broker": "benchmarks.field.broker",
    "sources": "benchmarks.field.sources",
    "sinks": "benchmarks.field.sinks",
    "changes": "benchmarks.field.changes",
    "soak": "benchmarks.field.soak",
}

if __name__ == "__main__":
    typer.run(main)
