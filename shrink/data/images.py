"""A set of images that is opened one image at a time."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Source(Protocol):
    """Where the pixels lie. `index` counts all images of the source."""

    def encoded(self, index: int) -> bytes:
        """The image as a file; may raise OSError."""

    def suffix(self, index: int) -> str:
        """The ending of a file that holds `encoded`, such as ".jpg"."""

    def size(self, index: int) -> int:
        """Bytes of the content. Images of different sizes differ; cheap. May raise OSError."""

    def digest(self, index: int) -> bytes:
        """A hash of the content. Comparable between sources of one kind; may raise OSError."""


@dataclass(frozen=True, slots=True)
class Files:
    """Image files."""

    paths: tuple[Path, ...]

    def encoded(self, index: int) -> bytes:
        return self.paths[index].read_bytes()

    def suffix(self, index: int) -> str:
        return self.paths[index].suffix.lower()

    def size(self, index: int) -> int:
        return self.paths[index].stat().st_size

    def digest(self, index: int) -> bytes:
        return hashlib.sha256(self.encoded(index)).digest()


@dataclass(frozen=True, slots=True)
class Arrays:
    """Pixels in memory, shape (n, H, W) grey or (n, H, W, 3) RGB."""

    pixels: NDArray[np.uint8]

    def encoded(self, index: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.pixels[index]).save(buffer, "PNG", compress_level=1)  # lossless; small is not the point
        return buffer.getvalue()

    def suffix(self, index: int) -> str:
        return ".png"

    def size(self, index: int) -> int:
        return int(self.pixels[index].nbytes)

    def digest(self, index: int) -> bytes:
        return hashlib.sha256(np.ascontiguousarray(self.pixels[index]).data).digest()


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Some images of a source, with their labels; a subset shares the source."""

    name: str  # as the user wrote it
    classes: tuple[str, ...] | None  # name of each label; None: labels are numbers without names, or absent
    refs: tuple[str, ...]  # tells an image apart and is the same in every run: "cat/7.jpg", "eval/17"
    labels: NDArray[np.int64] | None  # shape (n,), >= 0; None: not labelled
    source: Source
    where: NDArray[np.int64]  # shape (n,): index of each image in the source
    names: Mapping[int, str] = field(default_factory=dict)  # of some labels that are numbers: {1: "goldfish"}
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what else is known: name -> n values

    def __len__(self) -> int:
        return len(self.refs)

    def encoded(self, index: int) -> bytes:
        """The image as a file: its bytes, or a PNG of an array. May raise OSError."""
        return self.source.encoded(int(self.where[index]))

    def suffix(self, index: int) -> str:
        return self.source.suffix(int(self.where[index]))

    def size(self, index: int) -> int:
        return self.source.size(int(self.where[index]))

    def digest(self, index: int) -> bytes:
        return self.source.digest(int(self.where[index]))

    def label_name(self, label: int) -> str:
        """The name of a class, or "class 7" where it has none."""
        known = dict(enumerate(self.classes)) if self.classes else self.names
        return known.get(label, f"class {label}")

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Images:
        """These images, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            refs=tuple(self.refs[index] for index in chosen),
            labels=None if self.labels is None else self.labels[chosen],
            where=self.where[chosen],
            columns={name: tuple(values[index] for index in chosen) for name, values in self.columns.items()},
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """Data as it lies there, before calibration images are set apart."""

    train: Images | None  # the part that calibration may draw from; None: there is only one part
    evaluation: Images
    notes: tuple[str, ...] = ()  # what was passed over, and why


def from_source(
    name: str,
    source: Source,
    refs: Sequence[str],
    *,
    labels: Sequence[int] | NDArray[np.int64] | None,
    classes: Sequence[str] | None,
    names: Mapping[int, str] | None = None,
    columns: Mapping[str, tuple[str, ...]] | None = None,
) -> Images:
    """All images of a source."""
    return Images(
        name=name,
        classes=None if classes is None else tuple(classes),
        refs=tuple(refs),
        labels=None if labels is None else np.asarray(labels, dtype=np.int64),
        source=source,
        where=np.arange(len(refs), dtype=np.int64),
        names=names or {},
        columns=columns or {},
    )
