"""Trained networks with fewer channels, fitted without labels: what that costs in accuracy.

Example: python -m benchmarks.pruning --only resnet56_2x
"""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from benchmarks import accuracy, child, report
from benchmarks.facts import ROOT
from benchmarks.images import SHARED
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import RESULTS, Setting, Store

LIMIT_SECONDS = 7200.0  # on a busy machine, loading and judging included
CIFAR_CALIBRATION = 1024
FASHION_CALIBRATION = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One network and one factor."""

    network: str  # a row of `benchmarks.accuracy`, or a recipe of the demo
    factor: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Where Torch-Pruning is installed, and where models and images lie."""

    python: str
    shared: Path


CRITERIA = ("magnitude", "bn_scale", "taylor", "random")
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
    peer_python: Annotated[
        str | None, typer.Option(help="Interpreter of an environment with torch-pruning: also measure that.")
    ] = None,
    criteria: Annotated[list[str] | None, typer.Option("--criterion", help="Of the peer; default all.")] = None,
    no_ours: Annotated[bool, typer.Option("--no-ours", help="Only the peer.")] = False,
    shared: Annotated[Path, typer.Option(help="Optional data folder.")] = SHARED,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Prune trained networks with `shrink prune` and judge them on images that pruning did not use."""
    has_weights = (shared / "data" / "weights").is_dir()
    peer = None if peer_python is None else Peer(peer_python, shared.resolve())
    names = [name for name in only or ROWS if has_weights or ROWS[name].network.startswith("fashion")]
    settings: dict[str, dict[str, Setting]] = {
        name: {"network": ROWS[name].network, "factor": ROWS[name].factor, "score": score, "limit": limit}
        for name in names
    }
    measures = {name: partial(measure, ROWS[name], score, limit, shared.resolve()) for name in names}
    if peer is not None:
        for name, criterion in itertools.product(names, criteria or CRITERIA):
            settings[f"{name}_tp_{criterion}"] = settings[name] | {"score": f"Torch-Pruning, {criterion}"}
            measures[f"{name}_tp_{criterion}"] = partial(measure_peer, ROWS[name], criterion, limit, peer)
    if no_ours:
        measures = {name: measure for name, measure in measures.items() if name not in names}
    run_rows(Store("pruning", results), measures, settings, Again(again or bool(only), keep))
    report.write(results)


def measure(asked: Asked, score: str, limit: int, shared: Path, scratch: Path) -> Measured:
    """One `shrink prune`, as a user calls it."""
    out = scratch / "small"
    command = [sys.executable, "-m", "shrink.cli", "prune", *arguments(asked, limit, shared, scratch)]
    command += ["--prune", asked.factor, "--prune-score", score, "--out", str(out)]
    ended = child.run(command, cwd=ROOT, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    result: dict[str, Any] = {
        "wall_seconds": ended.seconds,
        "cpu_seconds": ended.cpu_seconds,
        "pruning_seconds": stage_seconds(ended.err),
        "peak_mib": ended.peak_mib,
    }
    failure = child.failure(ended, "shrink prune")
    if failure is None:
        about = msgspec.json.decode((out / "model.json").read_bytes())
        sizes = {key: value for key, value in about["plan"].items() if key.endswith(("_before", "_after"))}
        result |= {"judged": about["judged"], "changes": about["changes"], **sizes}
    return Measured(result, failure, ended.peak_mib)


def stage_seconds(told: str) -> float | None:
    """How long pruning itself took, without loading and judging, as the command's progress says."""
    found = re.search(r"capture and prune graph \.\.\. (?:(\d+) min )?([\d.]+) s", told)
    return None if found is None else 60 * float(found[1] or 0) + float(found[2])


def measure_peer(asked: Asked, criterion: str, limit: int, peer: Peer, scratch: Path) -> Measured:
    """Torch-Pruning on the same model, the same calibration images, judged by the same images."""
    given = arguments(asked, limit, peer.shared, scratch)
    paths = {name: scratch / file for name, file in (("images", "c.npy"), ("judge", "j.npz"), ("out", "out.json"))}
    model = write_images(given, limit, paths["images"], paths["judge"])
    command = [peer.python, "-m", "benchmarks.peers.torch_pruning", *model, "--criterion", criterion]
    command += ["--left", str(1 / float(asked.factor.removesuffix("x")))]
    command += [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    ended = child.run(command, cwd=ROOT, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    failure = child.failure(ended, "Torch-Pruning")
    result: dict[str, Any] = {"wall_seconds": ended.seconds, "cpu_seconds": ended.cpu_seconds}
    return Measured(result | (msgspec.json.decode(paths["out"].read_bytes()) if failure is None else {}), failure)


def write_images(given: list[str], limit: int, images: Path, judge: Path) -> list[str]:
    """Write calibration and evaluation images as the model takes them, and say how a peer is told the model."""
    from shrink import recipe
    from shrink.data.stream import SkipLog, stream
    from shrink.steps.loading import load
    from shrink.steps.pruning import calibration_tensor

    model = [] if given[0].startswith("--") else given[:1]
    flags = dict(zip(given[len(model) :: 2], given[len(model) + 1 :: 2], strict=True))
    own = {"model": model[0] if model else None, "prune": "2x"}
    own |= {name: flags.get(f"--{name}") for name in ("data", "checkpoint", "calibrate")}
    job = load(recipe.combine(Path(flags["--recipe"]), own), ())
    np.save(images, calibration_tensor(job, SkipLog()).numpy())
    evaluation = job.split.evaluation
    judged = evaluation.subset(range(min(limit, len(evaluation))))
    found = list(stream(judged, job.model.preprocess, batch=32, skipped=SkipLog()))
    np.savez(judge, x=np.concatenate([b.x for b in found]), y=np.concatenate([b.labels for b in found]))
    told = ["--model", job.recipe.model, "--recipe", flags["--recipe"], "--data", str(job.recipe.data)]
    return told + (["--checkpoint", str(job.recipe.checkpoint)] if job.recipe.checkpoint else [])


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
