"""What the commands cost: seconds and memory of an export, of the demo, and of asking for help.

Example: python -m benchmarks.export_cost --only help
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import child, report
from benchmarks.exports import export
from benchmarks.facts import ROOT
from benchmarks.images import SHARED, labelled, some_images, write_csv
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.randomize import randomize
from benchmarks.rows import RESULTS, Setting, Store
from shrink import models
from shrink.data.stream import stream

MODEL = "torchvision:mobilenet_v2"
CALIBRATE = 256
NAMES = "export, calibrate_64, calibrate_1024, help, demo"
HELP_RUNS = 15
LIMIT_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Options:
    """What all rows are given."""

    shared: Path
    calibrate: int
    evaluate: int


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"One of {NAMES}; repeatable.")] = None,
    calibrate: Annotated[int, typer.Option(help="Calibration images of the export, at least 32.")] = CALIBRATE,
    evaluate: Annotated[int, typer.Option(help="Images the export is judged on.")] = 256,
    shared: Annotated[Path, typer.Option(help="Optional data folder.")] = SHARED,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Measure wall time and peak memory of the commands a user meets first."""
    options = Options(shared.resolve(), calibrate, evaluate)
    names = only or list(ROWS)
    settings: dict[str, dict[str, Setting]] = {
        name: {"calibrate": calibrate, "evaluate": evaluate} if name == "export" else {} for name in names
    }
    measures = {name: partial(ROWS[name], options) for name in names}
    run_rows(Store("export_cost", results), measures, settings, Again(again or bool(only), keep))
    report.write(results)


def measure_export(options: Options, scratch: Path) -> Measured:
    """`shrink export` of MobileNetV2 with random weights, both int8 targets; making weights and data is not counted."""
    rows = labelled(options.shared, scratch / "images", options.calibrate + options.evaluate)
    table = write_csv(scratch / "data.csv", rows)
    weights = random_weights(options.shared, scratch)
    arguments = [MODEL, "--checkpoint", str(weights), "--data", str(table), "--calibrate", str(options.calibrate)]
    return export(arguments, scratch, data_name=f"{len(rows)} images", model_name=MODEL)


def measure_calibration(count: int, options: Options, scratch: Path) -> Measured:
    """One int8 target with that many calibration images and few others: what does memory do?"""
    rows = labelled(options.shared, scratch / "images", count + 32)
    table = write_csv(scratch / "data.csv", rows)
    weights = random_weights(options.shared, scratch)
    arguments = [MODEL, "--checkpoint", str(weights), "--data", str(table), "--calibrate", str(count)]
    arguments += ["--target", "tflite-int8", "--quantize", "fast"]
    return export(arguments, scratch, data_name=f"{len(rows)} images", model_name=MODEL)


def random_weights(shared: Path, scratch: Path) -> Path:
    """A checkpoint of MODEL that is not degenerate."""
    model = models.load(MODEL)
    images = some_images(shared, scratch / "statistics", 8)
    x = np.concatenate([batch.x for batch in stream(images, model.preprocess)])
    randomize(model.module, [image[None] for image in torch.from_numpy(x)], seed=0)
    path = scratch / "weights.pt"
    torch.save(model.module.state_dict(), path)
    return path


def measure_help(_: Options, scratch: Path) -> Measured:
    """`shrink --help`, from a warm disk: all runs but the first."""
    command = [sys.executable, "-X", "importtime", "-m", "shrink.cli", "--help"]
    traced = child.run(command, cwd=ROOT, scratch=scratch, limit_seconds=60)
    modules = {line.rpartition("|")[2].strip() for line in traced.err.splitlines()}
    runs = [
        child.run([sys.executable, "-m", "shrink.cli", "--help"], cwd=ROOT, scratch=scratch, limit_seconds=60)
        for _ in range(HELP_RUNS)
    ]
    result = {"samples_seconds": [run.seconds for run in runs], "imports_torch": "torch" in modules}
    return Measured(result, child.failure(runs[-1], "shrink --help"), max(run.peak_mib for run in runs))


def measure_demo(_: Options, scratch: Path) -> Measured:
    """The commands of `make demo`, its installation taken as done."""
    shims = scratch / "bin"
    shims.mkdir()
    for name, words in {"shrink": [sys.executable, "-m", "shrink.cli"], "python": [sys.executable]}.items():
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        shim.chmod(0o755)
    variables = [f"BIN={shims}", f"DEMO={scratch / 'demo'}", "INSTALLED="]
    ended = child.run(["make", *variables, "demo"], cwd=ROOT, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    result = {"wall_seconds": ended.seconds, "peak_mib": ended.peak_mib}
    return Measured(result, child.failure(ended, "make demo"), ended.peak_mib)


ROWS: dict[str, Callable[[Options, Path], Measured]] = {
    "export": measure_export,
    "calibrate_64": partial(measure_calibration, 64),
    "calibrate_1024": partial(measure_calibration, 1024),
    "help": measure_help,
    "demo": measure_demo,
}


if __name__ == "__main__":
    typer.run(main)
