"""flips.npz: small pictures of images whose answer changed, so that a page can show them without the data.

    rows     int32 (k,)      which rows of the predictions
    offsets  int64 (k + 1,)  picture i is files[offsets[i]:offsets[i + 1]]
    files    uint8 (bytes,)  PNG or JPEG files, one after the other

It is a file of its own, so that predictions can be shared where the images must not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from device_runner import npz
from device_runner.errors import ImageError
from device_runner.npz import Kind
from device_runner.preprocess import decode, upright
from shrink.errors import RequestError
from shrink.runs.predictions import Predictions

NAME = "flips.npz"
MOST = 50  # pictures in a file
SIDE = 160  # pixels of the longer side
LOSSLESS = 64  # pixels of the longer side up to which it is a PNG
LARGEST = 20_000  # bytes of one picture
QUALITIES = (82, 60, 35, 10)  # of JPEG, the first that is small enough
MAGIC: Mapping[str, bytes] = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}

KINDS = {"rows": Kind(("int32",), 1), "offsets": Kind(("int64",), 1), "files": Kind(("uint8",), 1)}


def flipped(p: Predictions) -> NDArray[np.int64]:
    """Rows that only the float model, or only some file, names rightly: the lost before the won, the surest first."""
    right = p.reference.top1 == p.labels
    tops = np.stack([file.top1 for file in p.files.values()]) if p.files else np.empty((0, len(p)), np.int32)
    flips = (tops == p.labels) != right
    changed = flips.any(0)
    surest = np.max([file.confidence for file in p.files.values()], axis=0, initial=0)
    sure = np.where(right, p.reference.confidence, surest)
    order = np.lexsort((-sure, ~right))
    chosen: NDArray[np.int64] = order[changed[order]]
    return chosen


def dump(p: Predictions, encoded: Callable[[int], bytes]) -> bytes:
    """Pictures of the first `MOST` flipped images.

    Args:
        encoded: the image of a row, as a file.
    """
    made = {int(row): thumbnail(encoded(int(row))) for row in flipped(p)[:MOST]}
    kept = {row: data for row, data in made.items() if data}
    arrays: dict[str, NDArray[Any]] = {
        "rows": np.array(list(kept), np.int32),
        "offsets": np.cumsum([0, *map(len, kept.values())], dtype=np.int64),
        "files": np.frombuffer(b"".join(kept.values()), np.uint8),
    }
    return npz.pack(arrays)


def parse(data: bytes) -> dict[int, bytes]:
    """Row of the predictions -> its picture, PNG or JPEG.

    Raises:
        RequestError: not such a file, or a damaged one.
    """
    try:
        found = dict(_cut(npz.unpack(data, KINDS)))
    except ValueError as error:
        why, fix = str(error), f"give the {NAME} that shrink export wrote, unchanged, or take it away"
        raise RequestError("these are not pictures that can be read", why, fix) from error
    return found


def mime(picture: bytes) -> str:
    """What kind of file it is.

    Raises:
        ValueError: neither PNG nor JPEG.
    """
    for kind, magic in MAGIC.items():
        if picture.startswith(magic):
            return kind
    raise ValueError("a picture is neither PNG nor JPEG")


def thumbnail(data: bytes) -> bytes:
    """An image file as a small one; nothing where it cannot be read or made small enough."""
    try:
        image = upright(decode(data)).convert("RGB")
    except (ImageError, OSError):
        return b""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small = max(image.size) <= LOSSLESS
    return next((made for made in _encodings(image, lossless=small) if len(made) <= LARGEST), b"")


def _encodings(image: Image.Image, *, lossless: bool) -> Iterator[bytes]:
    if lossless:
        yield _saved(image, "PNG")
    for quality in QUALITIES:
        yield _saved(image, "JPEG", quality)


def _saved(image: Image.Image, kind: str, quality: int = 0) -> bytes:
    out = BytesIO()
    image.save(out, kind, quality=quality, optimize=True)
    return out.getvalue()


def _cut(arrays: Mapping[str, NDArray[np.generic]]) -> Iterator[tuple[int, bytes]]:
    rows, offsets, files = arrays["rows"], arrays["offsets"], arrays["files"]
    if len(rows) > MOST or offsets.shape != (len(rows) + 1,):
        raise ValueError(f"it has {len(rows)} pictures and {len(offsets)} offsets; the most is {MOST}")
    sizes = np.diff(offsets.astype(np.int64))
    if offsets[0] != 0 or offsets[-1] != len(files) or (sizes <= 0).any() or (sizes > LARGEST).any():
        raise ValueError(f"offsets do not cut it into pictures of at most {LARGEST} bytes")
    for row, start, end in zip(rows, offsets[:-1], offsets[1:], strict=True):
        picture = files[int(start) : int(end)].tobytes()
        mime(picture)
        yield int(row), picture
