"""predictions.npz: what the float model and every file of a run answered for each evaluation image.

    about       uint8 (bytes,)      JSON: schema, names of the classes, targets, images, and the slices each image is of
    hashes      uint8 (n, 16)       start of the SHA-256 of each image's content
    labels      int32 (n,)          true classes
    top1        int32 (1 + m, n)    classes answered: row 0 by the float model, then by the file of each target
    confidence  float16 (1 + m, n)  probability of that class, 0..1
    margin      float16 (1 + m, n)  by how much it is above the second class's, 0..1

So two runs can be compared image by image, long after the models are gone. `numpy.load` reads it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from device_runner import npz
from device_runner.manifest import Record
from device_runner.npz import Kind
from shrink.errors import RequestError

NAME = "predictions.npz"
SCHEMA: Final = 1
"""Version of the format; a reader refuses any other."""

HASH_BYTES = 16
LARGEST = 1_000_000_000
"""Bytes that all arrays may take once they are unpacked: some ten million images."""

MOST_VALUES = 200
"""Values of a column of the data; one with more names images, not groups of them, and is not kept."""

KINDS = {
    "about": Kind(("uint8",), 1),
    "hashes": Kind(("uint8",), 2),
    "labels": Kind(("int32",), 1),
    "top1": Kind(("int32",), 2),
    "confidence": Kind(("float16",), 2),
    "margin": Kind(("float16",), 2),
}


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The best class of every image, rows in the order of the images."""

    top1: NDArray[np.int32]  # (n,)
    confidence: NDArray[np.float16]  # (n,), its probability
    margin: NDArray[np.float16]  # (n,), above the second class's


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """All answers of one run to n images."""

    classes: tuple[str, ...]
    refs: tuple[str, ...]  # n names, such as paths
    hashes: NDArray[np.uint8]  # (n, 16)
    labels: NDArray[np.int32]  # (n,)
    slices: Mapping[str, tuple[str, ...]]  # column of the data -> n values
    reference: Answered
    files: Mapping[str, Answered]  # by target

    def __len__(self) -> int:
        return len(self.refs)


class _Head(msgspec.Struct):
    schema: int


class _About(Record, frozen=True, kw_only=True):
    schema: Literal[1] = SCHEMA
    classes: tuple[str, ...]
    targets: tuple[str, ...]
    refs: tuple[str, ...]
    slices: dict[str, tuple[str, ...]]


def answered(scores: NDArray[np.float32]) -> Answered:
    """The best classes from logits, shape (n, classes)."""
    probable = softmax(scores.astype(np.float64), axis=1)
    top1 = scores.argmax(1).astype(np.int32)
    best = probable[np.arange(len(top1)), top1]
    others = probable.copy()
    others[np.arange(len(top1)), top1] = 0
    return Answered(top1, best.astype(np.float16), (best - others.max(1)).clip(0).astype(np.float16))


def groups(columns: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The columns of the data that name groups of images: those with at most `MOST_VALUES` values."""
    return {name: tuple(values) for name, values in columns.items() if len(set(values)) <= MOST_VALUES}


def dump(p: Predictions) -> bytes:
    """The file's bytes; the same predictions give the same bytes."""
    about = _About(classes=p.classes, targets=tuple(p.files), refs=p.refs, slices=dict(p.slices))
    rows = (p.reference, *p.files.values())
    arrays: dict[str, NDArray[Any]] = {
        "about": np.frombuffer(msgspec.json.encode(about), np.uint8),
        "hashes": p.hashes,
        "labels": p.labels.astype(np.int32),
        "top1": np.stack([row.top1 for row in rows]),
        "confidence": np.stack([row.confidence for row in rows]),
        "margin": np.stack([row.margin for row in rows]),
    }
    return npz.pack(arrays, compress=True)


def parse(data: bytes) -> Predictions:
    """Read the file; nothing in it is trusted.

    Raises:
        RequestError: not such a file, a damaged one, or one of another version.
    """
    try:
        arrays = npz.unpack(data, KINDS, compressed_to=LARGEST)
        text = arrays["about"].tobytes()
        schema = msgspec.json.decode(text, type=_Head).schema
        if schema == SCHEMA:
            about = msgspec.json.decode(text, type=_About)
            _check(about, arrays)
            return _assemble(about, arrays)
    except (ValueError, RecursionError) as error:  # those of msgspec are ValueErrors
        fix = f"give the {NAME} that shrink export wrote, unchanged, or export again"
        raise RequestError("these are not predictions that can be read", str(error), fix) from error
    raise RequestError(
        f"the predictions have schema {schema}",
        f"this version of shrink reads schema {SCHEMA}",
        "read them with the version of shrink that wrote them, or export again",
    )


def _assemble(about: _About, arrays: Mapping[str, NDArray[Any]]) -> Predictions:
    rows = [Answered(*row) for row in zip(arrays["top1"], arrays["confidence"], arrays["margin"], strict=True)]
    files = dict(zip(about.targets, rows[1:], strict=True))
    return Predictions(about.classes, about.refs, arrays["hashes"], arrays["labels"], about.slices, rows[0], files)


def _check(about: _About, arrays: Mapping[str, NDArray[Any]]) -> None:
    n, rows, classes = len(about.refs), 1 + len(about.targets), len(about.classes)
    shapes = {"hashes": (n, HASH_BYTES), "labels": (n,)} | dict.fromkeys(("top1", "confidence", "margin"), (rows, n))
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape} for {n} images and {rows} models")
    for name in ("labels", "top1"):
        if n and not (arrays[name].min() >= 0 and arrays[name].max() < classes):
            raise ValueError(f"{name} names classes outside 0..{classes - 1}")
    for name in ("confidence", "margin"):
        if not ((arrays[name] >= 0) & (arrays[name] <= 1)).all():  # NaN is neither
            raise ValueError(f"{name} is outside 0..1")
    if n == 0 or len(set(about.targets)) != len(about.targets):
        raise ValueError("it names no image, or a target twice")
    for column, values in about.slices.items():
        if len(values) != n:
            raise ValueError(f"column {column!r} has {len(values)} values for {n} images")
