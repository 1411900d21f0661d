"""Fashion-MNIST from its IDX files: 60,000 training and 10,000 test images, 28x28 grey, 10 classes."""

import gzip
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# of the training images scaled to 0..1; a network sees (pixel / 255 - MEAN) / STD
MEAN = 0.2860
STD = 0.3530

Split = Literal["train", "test"]
Images = NDArray[np.uint8]  # (N, 28, 28)
Labels = NDArray[np.uint8]  # (N,), 0..9
_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


class DataError(Exception):
    """The data cannot be read; the text is what went wrong, why, and how to repair it, one line each."""


def load(directory: Path, split: Split) -> tuple[Images, Labels]:
    """Read one split.

    Args:
        directory: holds the four `*-ubyte.gz` files.
        split: "train" (N = 60,000) or "test" (N = 10,000).

    Returns:
        images (N, 28, 28), 0 is background and 255 the brightest; labels (N,), an index into CLASSES.
    """
    images = directory / f"{_PREFIX[split]}-images-idx3-ubyte.gz"
    labels = directory / f"{_PREFIX[split]}-labels-idx1-ubyte.gz"
    for path in (images, labels):
        if not path.is_file():
            raise DataError(_missing(path))
    return read_idx(images), read_idx(labels)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes: magic 00 00 08 <rank>, big-endian uint32 sizes, then the bytes."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise DataError(
            f"error: {path} is not an IDX file of bytes\n"
            f"  why: it starts with {content[:4].hex()}, expected 000008 and the rank\n"
            "  fix: fetch the Fashion-MNIST files again"
        )
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4).tolist()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _missing(path: Path) -> str:
    return (
        f"error: no Fashion-MNIST in {path.parent}\n"
        f"  why: {path.name} is not there\n"
        "  fix: apt install dataset-fashion-mnist, or give --data the directory of the four .gz files"
    )
