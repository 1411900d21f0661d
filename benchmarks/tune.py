"""Training on the captured graph: what it wins back, beside what pruning and int8 cost.

Example: python -m benchmarks.tune --only cnn_2x
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import accuracy, report
from benchmarks.demo import DEBIAN_DIR
from benchmarks.distilling import half_student
from benchmarks.exports import export
from benchmarks.facts import ROOT
from benchmarks.images import SHARED
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.looping import processes, throughput
from benchmarks.rows import RESULTS, Setting, Store


@dataclass(frozen=True, slots=True)
class Asked:
    """One export."""

    network: str  # a recipe of the demo, or a row of `benchmarks.accuracy`
    options: tuple[str, ...]
    images: int  # to train on, of each class as many


EXPORTS = {
    "cnn_2x": Asked("fashion_cnn", ("--prune", "2x", "--calibrate", "1024", "--tune", "1"), 12_000),
    "vit_1.5x": Asked("fashion_vit", ("--prune", "1.5x", "--calibrate", "1024", "--tune", "1"), 12_000),
    "cnn_qat": Asked("fashion_cnn", ("--qat", "1"), 12_000),
    "vit_qat": Asked("fashion_vit", ("--qat", "1"), 4_000),
    "resnet20_qat": Asked("resnet20", ("--qat", "1"), 3_000),
}
OTHERS: Mapping[str, Callable[[Path, Path], Measured]] = {
    "half_student": half_student,
    "processes": processes,
    "throughput": throughput,
}


def main(
    only: Annotated[list[str] | None, typer.Option(help="Measure this one, also if it is there; repeatable.")] = None,
    images: Annotated[int | None, typer.Option(help="To train on, instead of the row's own number.")] = None,
    limit: Annotated[int, typer.Option(help="Most images to judge with, for a trial.")] = 10_000,
    fashion: Annotated[Path, typer.Option(help="Fashion-MNIST's files.")] = DEBIAN_DIR,
    shared: Annotated[Path, typer.Option(help="Optional data folder.")] = SHARED,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Train pruned and quantized networks, and judge their files on images that training did not use."""
    has_weights = (shared / "data" / "weights").is_dir()
    names = [
        name
        for name in only or [*EXPORTS, *OTHERS]
        if name in OTHERS or has_weights or EXPORTS[name].network.startswith("fashion")
    ]
    measures: dict[str, Callable[[Path], Measured]] = {}
    settings: dict[str, dict[str, Setting]] = {}
    for name in names:
        if name in OTHERS:
            measures[name], settings[name] = partial(OTHERS[name], fashion), {}
            continue
        asked = EXPORTS[name]
        count = images or asked.images
        measures[name] = partial(measure, asked, count, limit, fashion, shared.resolve())
        settings[name] = {"options": " ".join(asked.options), "images": count, "limit": limit}
    run_rows(Store("tune", results), measures, settings, Again(again or bool(only), keep))
    report.write(results)


def measure(asked: Asked, images: int, limit: int, fashion: Path, shared: Path, scratch: Path) -> Measured:
    """One `shrink export`, as a user calls it."""
    if asked.network in accuracy.ROWS:
        row = accuracy.ROWS[asked.network]
        recipe = scratch / "recipe.toml"
        recipe.write_text(row.preprocess, encoding="utf-8")
        arguments = [row.model.format(shared=shared), "--recipe", str(recipe)]
        arguments += ["--checkpoint", str(shared / "data" / "weights" / row.weights)]
        source = np.load(shared / "data" / "cifar10.npz")
        arrays = {key: source[key] for key in ("x_train", "y_train", "x_test", "y_test", "classes")}
    else:
        arguments = ["--recipe", str(ROOT / "recipes" / f"{asked.network}.toml")]
        arrays = fashion_mnist(fashion)
    data = some(arrays, images, limit, scratch / "data.npz")
    return export(
        [*arguments, "--data", str(data), *asked.options], scratch, data_name="train and test", model_name=asked.network
    )


def fashion_mnist(folder: Path) -> dict[str, Any]:
    """The full set as arrays."""
    sys.path.insert(0, str(ROOT / "recipes" / "demo"))
    import fashion

    train, test = (fashion.load(folder, split) for split in ("train", "test"))
    return dict(
        zip(("x_train", "y_train", "x_test", "y_test"), (*train, *test), strict=True), classes=np.array(fashion.CLASSES)
    )


def some(arrays: Mapping[str, Any], images: int, limit: int, file: Path) -> Path:
    """A .npz of the first images to train on and to judge by."""
    cut = {"x_train": images, "y_train": images, "x_test": limit, "y_test": limit}
    np.savez(file, **{name: value[: cut.get(name)] for name, value in arrays.items()})
    return file


if __name__ == "__main__":
    typer.run(main)
