"""device_runner in the field: does it keep what it promises when everything around it breaks?

Example: python -m benchmarks.runner --only rules
Needs `make demo` for the bundle; `soak` and `broker` mosquitto, `kills` strace, `sources` ffmpeg and ip.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import report
from benchmarks.facts import ROOT
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import RESULTS, Setting, Store

BUNDLE = ROOT / "out" / "demo" / "cnn" / "tflite-int8"


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(help="rules, bundles, kills, costs, broker, sources, changes or soak; repeatable."),
    ] = None,
    bundle: Annotated[Path, typer.Option(help="A bundle of the demo.")] = BUNDLE,
    scale: Annotated[float, typer.Option(help="Do so much of the full amount, 0 to 1.")] = 1.0,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
) -> None:
    """Measure the runner's promises; exit 1 if one is broken."""
    if not bundle.is_dir():
        raise typer.BadParameter(f"there is no bundle at {bundle}: run `make demo`, or name one with --bundle")
    sys.path.insert(0, str(ROOT / "tests" / "device_runner"))
    names = only or list(ROWS)
    settings: dict[str, dict[str, Setting]] = {name: {"scale": scale} for name in names}
    measures = {name: partial(measure, name, bundle.resolve(), scale) for name in names}
    failed = run_rows(Store("device_runner", results), measures, settings, Again(again or bool(only)))
    report.write(results)
    raise typer.Exit(bool(failed))


def measure(name: str, bundle: Path, scale: float, scratch: Path) -> Measured:
    """One row: the figures, and the promises they break."""
    from importlib import import_module

    module = import_module(ROWS[name])
    found: Callable[[Path, float, Path], Measured] = module.measure
    return found(bundle, scale, scratch)


ROWS = {
    "rules": "benchmarks.field.rules",
    "bundles": "benchmarks.field.bundles",
    "kills": "benchmarks.field.kills",
    "costs": "benchmarks.field.costs",
    "broker": "benchmarks.field.broker",
    "sources": "benchmarks.field.sources",
    "changes": "benchmarks.field.changes",
    "soak": "benchmarks.field.soak",
}

if __name__ == "__main__":
    typer.run(main)
