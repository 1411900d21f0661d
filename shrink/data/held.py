"""Prepared images held for many passes: each is decoded once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from device_runner.manifest import Preprocess
from shrink.data.images import Images
from shrink.data.levels import grey_levels
from shrink.data.stream import SkipLog, stream
from shrink.errors import DataError

IN_MEMORY = 2**31  # bytes; more are held in a file without a name, which goes with the process
BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Some images, resized and cropped as the device does it, not normalized.

    Attributes:
        pixels: (n, C, H, W) uint8.
        labels: (n,), or None.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """(n, C, H, W) uint8, a copy."""
        return torch.from_numpy(self.pixels[indices])


def hold(
    images: Images,
    preprocess: Preprocess,
    skipped: SkipLog,
    *,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
    in_memory: int = IN_MEMORY,
) -> Held:
    """Decode all images that can be read.

    Args:
        skipped: where to write down those that cannot.
        track: shows the progress; given the batches and their number.
        in_memory: bytes.

    Raises:
        DataError: more than 5 % cannot be read, or there is no room for them.
    """
    place: NDArray[np.uint8] | None = None
    kept: list[int] = []
    batches = stream(images, preprocess, batch=BATCH, skipped=skipped)
    for batch in track(batches, -(-len(images) // BATCH)):
        if place is None:
            place = _room((len(images), *batch.x.shape[1:]), in_memory)
        levels = grey_levels(np.moveaxis(batch.x, 1, -1), preprocess)
        place[len(kept) : len(kept) + len(levels)] = np.moveaxis(levels, -1, 1)
        kept += batch.indices.tolist()
    if place is None:
        raise DataError("there are no images to train on", f"{images.name} has none for it", "add some")
    labels = None if images.labels is None else images.labels[kept]
    return Held(place[: len(kept)], labels)


def _room(shape: tuple[int, ...], in_memory: int) -> NDArray[np.uint8]:
    size = int(np.prod(shape, dtype=np.int64))
    if size <= in_memory:
        return np.empty(shape, np.uint8)
    try:  # the map keeps the file open
        file = tempfile.TemporaryFile()  # noqa: SIM115
        file.truncate(size)
        return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        why = f"they take {size / 2**30:.1f} GiB in {tempfile.gettempdir()}: {error.strerror or error}"
        raise DataError("the images cannot be held", why, "make room there, or set TMPDIR") from error
