"""The demo CNN and ViT, judged on all 10,000 test images of Fashion-MNIST.

Example: python -m benchmarks.demo
"""

from __future__ import annotations

import runpy
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import report
from benchmarks.exports import export
from benchmarks.facts import ROOT
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import RESULTS, Setting, Store

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
ROWS = {"fashion_cnn": "demo CNN", "fashion_vit": "demo ViT"}  # recipe -> what to call the model
CALIBRATION_PER_CLASS = 100  # that the export may draw from


def main(
    data: Annotated[Path, typer.Option(help="Directory of the four IDX .gz files.")] = DEBIAN_DIR,
    only: Annotated[list[str] | None, typer.Option(help="Measure this one, also if it is there; repeatable.")] = None,
    limit: Annotated[int, typer.Option(help="Most test images, for a trial.")] = 10_000,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Export both demo models and judge them on the full test split."""
    if not data.is_dir():
        typer.echo(f"skipped: {data} is not there; apt install dataset-fashion-mnist, or give --data")
        return
    names = only or list(ROWS)
    settings: dict[str, Setting] = {"test_images": limit, "data": "Fashion-MNIST, full test split"}
    measures = {name: partial(measure, name, data, limit) for name in names}
    run_rows(Store("demo", results), measures, dict.fromkeys(names, settings), Again(again or bool(only), keep))
    report.write(results)


def measure(name: str, data: Path, limit: int, scratch: Path) -> Measured:
    """One recipe on the full test split."""
    packed = pack(data, scratch / "fashion.npz", limit)
    arguments = ["--recipe", str(ROOT / "recipes" / f"{name}.toml"), "--data", str(packed)]
    return export(arguments, scratch, data_name="Fashion-MNIST", model_name=ROWS[name])


def pack(data: Path, out: Path, limit: int) -> Path:
    """The IDX files as the .npz that `shrink export --data` takes; calibration images from the training split."""
    fashion: dict[str, Any] = runpy.run_path(str(ROOT / "recipes" / "demo" / "fashion.py"))
    (images, labels), (test_images, test_labels) = (fashion["load"](data, part) for part in ("train", "test"))
    first = np.sort(np.concatenate([np.flatnonzero(labels == c)[:CALIBRATION_PER_CLASS] for c in range(10)]))
    np.savez(
        out,
        calib_images=images[first],
        calib_labels=labels[first],
        eval_images=test_images[:limit],
        eval_labels=test_labels[:limit],
        classes=np.array(fashion["CLASSES"]),
    )
    return out


if __name__ == "__main__":
    typer.run(main)
