"""Images that `pipeline_models` can name, and folders of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shrink.report.schema import Report

MODELS = Path(__file__).with_name("pipeline_models.py")
CLASSES = ("left-lower", "left-upper", "right-lower", "right-upper")  # in the order of their names
BESIDE = ("flips.npz", "predictions.npz", "report.json", "report.md")  # beside the bundles
COARSE, FINE = 60, 8  # grey levels between the halves


@dataclass(frozen=True)
class Exported:
    """What an export left."""

    out: Path
    report: Report


def picture(label: int, rng: np.random.Generator, size: int = 16) -> NDArray[np.uint8]:
    """A smooth grey picture of that class, different every time; shape (size, size)."""
    small = Image.fromarray(rng.integers(90, 140, (4, 4), dtype=np.uint8))
    pixels = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    half = size // 2
    pixels -= pixels.mean()
    for part, slope in (
        (np.s_[:, half:], COARSE * (2 * (label // 2) - 1)),
        (np.s_[half:], -FINE * (2 * (label % 2) - 1)),
    ):
        other = np.s_[:, :half] if part == np.s_[:, half:] else np.s_[:half]
        gap = pixels[part].mean() - pixels[other].mean()
        pixels[part] += (slope - gap) / 2
        pixels[other] -= (slope - gap) / 2
    return np.clip(pixels + 128, 0, 255).round().astype(np.uint8)


def folder(root: Path, *, train: int, val: int, seed: int = 0) -> Path:
    """`train/` and `val/` with that many images, the classes in turn."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("val", val)):
        for index in range(count):
            path = root / part / CLASSES[index % 4] / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(index % 4, rng)).save(path)
    return root
