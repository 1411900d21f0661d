"""Evaluation images as files in a folder, to try a bundle on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from shrink.data.images import Images
from shrink.data.sources import read
from shrink.data.split import ranks
from shrink.errors import OutputError


def unpack(data: str, out: Path, count: int) -> list[Path]:
    """Write the first images of each class as `<class>_<i>.png`, or with the bytes and ending they have.

    Args:
        data: an image folder, a CSV, a .npz or a built-in name.
        out: where to; made if it is not there, files of the same name are replaced.
        count: images in all, every class's first before any class's second.

    Returns:
        the files, in the order of the classes.
    """
    images = read(data).evaluation
    labels = np.zeros(len(images), dtype=np.int64) if images.labels is None else images.labels
    chosen = np.lexsort((labels, ranks(labels)))[:count]  # by rank, then by class
    ordered = chosen[np.lexsort((ranks(labels)[chosen], labels[chosen]))]
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [_write(images, index, path) for index, path in _paths(images, ordered.tolist(), out)]
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        raise OutputError(f"cannot write images to {out}", why, "choose a folder that can be written") from error


def slug(text: str) -> str:
    """Lower-case letters, digits and single dashes: slug("T-shirt/top") is "t-shirt-top"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "class"


def _paths(images: Images, indices: Iterable[int], out: Path) -> Iterator[tuple[int, Path]]:
    """A file for each image; classes whose slugs are equal share the numbers."""
    used: Counter[str] = Counter()
    for index in indices:
        name = "image" if images.labels is None else slug(images.label_name(int(images.labels[index])))
        yield index, out / f"{name}_{used[name]}{images.suffix(index)}"
        used[name] += 1


def _write(images: Images, index: int, path: Path) -> Path:
    path.write_bytes(images.encoded(index))
    return path
