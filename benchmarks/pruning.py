"""Trained networks with fewer channels, fitted without labels: what that costs in accuracy.

Example: python -m benchmarks.pruning --only resnet56_2x
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from benchmarks import accuracy, child, report
from benchmarks.facts import ROOT
from benchmarks.images import SHARED
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import RESULTS, Setting, Store

LIMIT_SECONDS = 1800.0
CIFAR_CALIBRATION = 1024
FASHION_CALIBRATION = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One network and one factor."""

    network: str  # a row of `benchmarks.accuracy`, or a recipe of the demo
    factor: str


ROWS = {
    "fashion_cnn_1.5x": Asked("fashion_cnn", "1.5x"),
    "fashion_vit_1.5x": Asked("fashion_vit", "1.5x"),
    "resnet56_1.5x": Asked("resnet56", "1.5x"),
    "resnet56_2x": Asked("resnet56", "2x"),
    "efficientnet_lite0_1.3x": Asked("efficientnet_lite0", "1.3x"),
    "vit_tiny_1.3x": Asked("vit_tiny", "1.3x"),
}


def main(
    only: Annotated[list[str] | None, typer.Option(help="Measure this one, also if it is there; repeatable.")] = None,
    score: Annotated[str, typer.Option(help="error, taylor, magnitude or random.")] = "error",
    limit: Annotated[int, typer.Option(help="Most images to judge with, for a trial.")] = 10_000,
    shared: Annotated[Path, typer.Option(help="Optional data folder.")] = SHARED,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Prune trained networks with `shrink prune` and judge them on images that pruning did not use."""
    has_weights = (shared / "data" / "weights").is_dir()
    names = [name for name in only or ROWS if has_weights or ROWS[name].network.startswith("fashion")]
    settings: dict[str, dict[str, Setting]] = {
        name: {"network": ROWS[name].network, "factor": ROWS[name].factor, "score": score, "limit": limit}
        for name in names
    }
    measures = {name: partial(measure, ROWS[name], score, limit, shared.resolve()) for name in names}
    run_rows(Store("pruning", results), measures, settings, Again(again or bool(only), keep))
    report.write(results)


def measure(asked: Asked, score: str, limit: int, shared: Path, scratch: Path) -> Measured:
    """One `shrink prune`, as a user calls it."""
    out = scratch / "small"
    command = [sys.executable, "-m", "shrink.cli", "prune", *arguments(asked, limit, shared, scratch)]
    command += ["--prune", asked.factor, "--prune-score", score, "--out", str(out)]
    ended = child.run(command, cwd=ROOT, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    result: dict[str, Any] = {"wall_seconds": ended.seconds, "peak_mib": ended.peak_mib}
    failure = child.failure(ended, "shrink prune")
    if failure is None:
        about = msgspec.json.decode((out / "model.json").read_bytes())
        sizes = {key: value for key, value in about["plan"].items() if key.endswith(("_before", "_after"))}
        result |= {"judged": about["judged"], "changes": about["changes"], **sizes}
    return Measured(result, failure, ended.peak_mib)


def arguments(asked: Asked, limit: int, shared: Path, scratch: Path) -> list[str]:
    """Model, weights and data, as the command takes them."""
    if asked.network not in accuracy.ROWS:
        recipe = ROOT / "recipes" / f"{asked.network}.toml"
        return ["--recipe", str(recipe), "--calibrate", str(FASHION_CALIBRATION)]
    row = accuracy.ROWS[asked.network]
    recipe = scratch / "recipe.toml"
    recipe.write_text(row.preprocess, encoding="utf-8")
    given = [row.model.format(shared=shared), "--recipe", str(recipe)]
    given += ["--checkpoint", str(shared / "data" / "weights" / row.weights)]
    if row.data == "cifar10":
        data = accuracy.cifar(shared, scratch, limit)
        return [*given, *data[:-1], str(CIFAR_CALIBRATION)]
    return [*given, *accuracy.split_photographs(shared, scratch, limit)]


if __name__ == "__main__":
    typer.run(main)
