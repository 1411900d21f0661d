"""Images as batches for the model: decoded ahead by a few threads, in order, in little memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from device_runner.errors import ImageError
from device_runner.manifest import Preprocess
from device_runner.preprocess import prepare
from shrink.data.images import Images
from shrink.errors import DataError

MOST_SKIPPED = 0.05  # of all images; above it the rest is no longer the data that was meant


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some images, ready for the model."""

    x: NDArray[np.float32]  # (b, C, H, W), contiguous
    labels: NDArray[np.int64] | None  # (b,)
    indices: NDArray[np.int64]  # (b,): which of the `Images` they are


@dataclass(slots=True)
class SkipLog:
    """Images that could not be read: ref -> reason. One log may serve several passes."""

    entries: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)


def stream(
    images: Images, preprocess: Preprocess, *, batch: int = 32, workers: int = 2, skipped: SkipLog | None = None
) -> Iterator[Batch]:
    """All readable images in their order.

    Args:
        images: what to read.
        preprocess: how to prepare each image.
        batch: images per batch, the last one may have fewer; about three times as many are held in memory.
        workers: decoding threads.
        skipped: where to write down the images that cannot be read.

    Raises:
        DataError: more than 5 % of the images cannot be read; raised as soon as that is certain.
    """
    decoded = _decoded(images, preprocess, look_ahead=batch, workers=workers)
    readable = _readable(decoded, images, SkipLog() if skipped is None else skipped)
    while chunk := list(islice(readable, batch)):
        indices = np.array([index for index, _ in chunk], dtype=np.int64)
        x = np.stack([pixels.transpose(2, 0, 1) for _, pixels in chunk])
        yield Batch(np.ascontiguousarray(x), None if images.labels is None else images.labels[indices], indices)


def _decoded(
    images: Images, preprocess: Preprocess, *, look_ahead: int, workers: int
) -> Iterator[tuple[int, NDArray[np.float32] | str]]:
    """(index, pixels (H, W, C) or the reason why not), at most `look_ahead` of them at once."""
    pending: deque[tuple[int, Future[NDArray[np.float32] | str]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in range(len(images)):
                pending.append((index, pool.submit(_prepare, images, index, preprocess)))
                if len(pending) >= look_ahead:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:  # the reader may stop early
            for _, future in pending:
                future.cancel()


def _prepare(images: Images, index: int, preprocess: Preprocess) -> NDArray[np.float32] | str:
    try:
        return prepare(images.encoded(index), preprocess)
    except ImageError as error:
        return f"{error.what}: {error.why}"
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"


def _readable(
    decoded: Iterable[tuple[int, NDArray[np.float32] | str]], images: Images, log: SkipLog
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The images that could be read; the others go to the log, and too many of them are an error."""
    failed: list[int] = []
    for index, result in decoded:
        if not isinstance(result, str):
            yield index, result
            continue
        failed.append(index)
        log.entries[images.refs[index]] = result
        if len(failed) > MOST_SKIPPED * len(images):
            first = images.refs[failed[0]]
            raise DataError(
                f"{len(failed)} of the {len(images)} images of {images.name} cannot be read",
                f"that is over {MOST_SKIPPED:.0%}; the first is {first}: {log.entries[first]}",
                "repair them or take them out",
            )
