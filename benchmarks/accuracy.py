"""Trained networks on real images: what int8 costs, per target.

Example: python -m benchmarks.accuracy --only resnet20
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import report
from benchmarks.exports import export
from benchmarks.images import SHARED, photographs, write_csv
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import RESULTS, Setting, Store

TARGETS = ("tflite-int8", "onnx-int8")
CALIBRATE_EVERY = 4  # of the photographs; the others judge
CIFAR_CALIBRATION = 512

CIFAR_PREPROCESS = """[preprocess]
color = "RGB"
exif = false
resize = "exact"
size = [32, 32]
filter = "bilinear"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


def _imagenet_preprocess(resized: int) -> str:
    return f"""[preprocess]
color = "RGB"
exif = true
resize = "shorter"
size = [{resized}, {resized}]
filter = "bicubic"
crop = [224, 224]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network of the optional data folder."""

    model: str  # {shared} stands for the folder
    weights: str  # in {shared}/data/weights
    data: str  # "cifar10" or "photographs"
    preprocess: str  # TOML
    sabotaged: bool = False  # channels rescaled, see `sabotage`


ROWS = {
    "resnet20": Trained(
        "{shared}/data/models.py:resnet20", "cifar10_resnet20_akamaster.pt", "cifar10", CIFAR_PREPROCESS
    ),
    "resnet56": Trained(
        "{shared}/data/models.py:resnet56", "cifar10_resnet56_akamaster.pt", "cifar10", CIFAR_PREPROCESS
    ),
    "resnet20_sabotaged": Trained(
        "{shared}/data/models.py:resnet20", "cifar10_resnet20_akamaster.pt", "cifar10", CIFAR_PREPROCESS, sabotaged=True
    ),
    "efficientnet_lite0": Trained(
        "timm:tf_efficientnet_lite0", "imagenet_tf_efficientnet_lite0.pt", "photographs", _imagenet_preprocess(256)
    ),
    "vit_tiny": Trained(
        "timm:vit_tiny_patch16_224", "imagenet_vit_tiny_patch16_224.pt", "photographs", _imagenet_preprocess(248)
    ),
}


def main(
    only: Annotated[list[str] | None, typer.Option(help="Measure this one, also if it is there; repeatable.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Only these; default tflite-int8 and onnx-int8.")] = None,
    limit: Annotated[int, typer.Option(help="Most images to judge with, for a trial.")] = 10_000,
    shared: Annotated[Path, typer.Option(help="Optional data folder.")] = SHARED,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Export trained networks to int8 and judge them on images that calibration did not use."""
    if not (shared / "data" / "weights").is_dir():
        typer.echo(f"skipped: there are no trained weights in {shared / 'data'}; give --shared")
        return
    targets = tuple(target or TARGETS)
    names = only or list(ROWS)
    settings: dict[str, dict[str, Setting]] = {
        name: {"targets": " ".join(targets), "limit": limit, "data": ROWS[name].data} for name in names
    }
    measures = {name: partial(measure, name, targets, limit, shared.resolve()) for name in names}
    run_rows(Store("accuracy", results), measures, settings, Again(again or bool(only), keep))
    report.write(results)


def measure(name: str, targets: tuple[str, ...], limit: int, shared: Path, scratch: Path) -> Measured:
    """One network, all targets in one export."""
    row = ROWS[name]
    recipe = scratch / "recipe.toml"
    recipe.write_text(row.preprocess, encoding="utf-8")
    arguments = [row.model.format(shared=shared), "--recipe", str(recipe)]
    weights = shared / "data" / "weights" / row.weights
    arguments += ["--checkpoint", str(sabotage(weights, scratch / "sabotaged.pt") if row.sabotaged else weights)]
    arguments += cifar(shared, scratch, limit) if row.data == "cifar10" else split_photographs(shared, scratch, limit)
    arguments += [word for target in targets for word in ("--target", target)]
    return export(arguments, scratch, data_name=row.data, model_name=name)


def sabotage(weights: Path, out: Path) -> Path:
    """The weights of a network with blocks of conv1, bn1, ReLU, conv2 that answers the same, but with the channels
    between the two multiplied by 0.01 to 100, so that one range for all of them leaves most no codes."""
    state = torch.load(weights, weights_only=True)
    for name in [name for name in state if name.endswith(".conv2.weight")]:
        norm = name.replace(".conv2.weight", ".bn1")
        factors = torch.logspace(-2, 2, state[name].shape[1])
        state[f"{norm}.weight"] = state[f"{norm}.weight"] * factors
        state[f"{norm}.bias"] = state[f"{norm}.bias"] * factors
        state[name] = state[name] / factors[:, None, None]
    torch.save(state, out)
    return out


def cifar(shared: Path, scratch: Path, limit: int) -> list[str]:
    """The whole test split, calibrated on few images of the training split."""
    packed = shared / "data" / "cifar10.npz"
    if limit < 10_000:
        with np.load(packed) as arrays:
            few = {key: arrays[key][:limit] if key.endswith("_test") else arrays[key] for key in arrays.files}
        packed = scratch / "cifar10.npz"
        np.savez(packed, **few)
    return ["--data", str(packed), "--calibrate", str(CIFAR_CALIBRATION)]


def split_photographs(shared: Path, scratch: Path, limit: int) -> list[str]:
    """Every fourth photograph calibrates, the others judge."""
    found = photographs(shared)
    calibrate = [row for index, row in enumerate(found) if index % CALIBRATE_EVERY == 0]
    others = [row for index, row in enumerate(found) if index % CALIBRATE_EVERY != 0][:limit]
    tables = write_csv(scratch / "judge.csv", others), write_csv(scratch / "calibrate.csv", calibrate)
    return ["--data", str(tables[0]), "--calibrate", str(tables[1])]


if __name__ == "__main__":
    typer.run(main)
