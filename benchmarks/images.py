"""Images to calibrate and judge with: photographs where the optional data folder has them, else made ones."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.facts import ROOT
from shrink.data.images import Files, Images, from_source

SHARED = ROOT.parent / "shared"
"""The optional data folder, see README.md."""

PHOTOGRAPHS = Path("data", "imagenet_nips17")
MADE_SIZE = 256  # pixels


def photographs(shared: Path) -> list[tuple[Path, int]]:
    """(file, ImageNet class) of every photograph, in the order of its list; empty without the folder."""
    table = shared / PHOTOGRAPHS / "labels.csv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return [(table.parent / row["path"], int(row["label"])) for row in csv.DictReader(file)]


def some_images(shared: Path, scratch: Path, count: int) -> Images:
    """Unlabelled images: photographs, or as many made ones, written to `scratch`."""
    found = [path for path, _ in photographs(shared)]
    paths = found[:count] if len(found) >= count else make_images(scratch, count)
    name = "photographs" if found else "made images"
    return from_source(name, Files(tuple(paths)), [path.name for path in paths], labels=None, classes=None)


def labelled(shared: Path, scratch: Path, count: int) -> list[tuple[Path, int]]:
    """Images with classes below 1000; those of made images mean nothing."""
    found = photographs(shared)
    if len(found) >= count:
        return found[:count]
    return [(path, index * 37 % 1000) for index, path in enumerate(make_images(scratch, count))]


def write_csv(table: Path, rows: list[tuple[Path, int]]) -> Path:
    """A table `path,label` as `shrink export --data` takes it."""
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows((path.resolve(), label) for path, label in rows)
    return table


def make_images(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """PNG files with the spectrum, colours and edges of photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        path = folder / f"made_{index:04}.png"
        Image.fromarray(make_image(np.random.default_rng((seed, index)))).save(path, compress_level=1)
        paths.append(path)
    return paths


def make_image(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise whose amplitude falls as 1/f, correlated between colours, with some flat shapes; (256, 256, 3)."""
    frequency = np.hypot(np.fft.fftfreq(MADE_SIZE)[:, None], np.fft.rfftfreq(MADE_SIZE)[None])
    spectrum = rng.standard_normal((3, *frequency.shape, 2)) @ np.array([1, 1j])
    waves = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / MADE_SIZE), s=(MADE_SIZE, MADE_SIZE))
    waves /= waves.std(axis=(1, 2), keepdims=True)
    grey, colour = waves[:1], waves[1:]
    mixed = grey + 0.35 * np.concatenate([colour, -colour.sum(0, keepdims=True)])
    pixels = np.clip(rng.uniform(80, 170) + rng.uniform(30, 60) * mixed, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 7))):
        x, y, w, h = rng.integers(0, MADE_SIZE, 4)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((int(x), int(y), int(x + w // 2), int(y + h // 2)), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    return np.asarray(image)
