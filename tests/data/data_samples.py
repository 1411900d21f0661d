"""Hand-made data for the tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from device_runner.manifest import Preprocess

GREY = Preprocess(
    color="L", exif=True, resize="shorter", size=(16, 16), filter="bilinear", crop=(16, 16), mean=(0.25,), std=(0.5,)
)


def picture(seed: int, size: int = 16) -> NDArray[np.uint8]:
    """A smooth grey picture like a photograph, different for every seed; shape (size, size)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (size // 4, size // 4), dtype=np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, seed: int) -> Path:
    """One picture as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(picture(seed)))
    return path


def folder(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Class folders with that many pictures each, none like another; `first` is the first seed."""
    for name, count in counts.items():
        for index in range(count):
            write(root / name / f"{index:03}.png", first)
            first += 1
    return root


def listing(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path
