"""golden.npz: real images with the pixels, inputs and outputs they must give on every device.

    images         uint8 (bytes,)      the encoded image files, one after the other
    offsets        int64 (n + 1,)      image i is images[offsets[i]:offsets[i + 1]]
    pixels         uint8 (n, H, W, C)  what `preprocess.pixels` gave
    inputs_sha256  uint8 (n, 32)       of the bytes of the encoded input tensor
    outputs        (n, classes)        the model's raw outputs, in its own dtype

The toolkit writes this file and the runner reads it, both here. It is a plain .npz of stored members
with fixed dates: the same arrays give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from device_runner import npz, preprocess
from device_runner.errors import BundleError
from device_runner.manifest import Input, Preprocess
from device_runner.npz import Kind

KINDS = {
    "images": Kind(("uint8",), 1),
    "offsets": Kind(("int64",), 1),
    "pixels": Kind(("uint8",), 4),
    "inputs_sha256": Kind(("uint8",), 2),
    "outputs": Kind(("float32", "int8", "uint8"), 2),
}
PROBE_SIZE = (509, 383)  # odd, and larger than most models' input, so that filters differ when it shrinks
GRAINS = ((6, 60), (13, 60), (47, 60))  # texture of the probe: width in pixels, depth of 256


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """The arrays of golden.npz, as listed above."""

    images: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    inputs_sha256: NDArray[np.uint8]
    outputs: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, i: int) -> bytes:
        """The i-th image file."""
        return self.images[self.offsets[i] : self.offsets[i + 1]].tobytes()


def make_golden(
    images: Sequence[bytes], p: Preprocess, spec: Input, run: Callable[[NDArray[np.generic]], NDArray[np.generic]]
) -> bytes:
    """Write golden.npz of these images and, last, the probe image.

    Args:
        images: encoded image files, 16 or more real ones are worth having.
        p: the manifest's preprocessing.
        spec: the manifest's input.
        run: the model on the reference runtime, as `Engine.run`.
    """
    files = [*images, probe_image()]
    pixels = np.stack([preprocess.pixels(preprocess.decode(data), p) for data in files])
    inputs = [preprocess.tensor(image, p, spec) for image in pixels]
    golden = Golden(
        images=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)], dtype=np.int64),
        pixels=pixels,
        inputs_sha256=np.stack([digest(x) for x in inputs]),
        outputs=np.concatenate([run(x) for x in inputs]),
    )
    return _write(golden)


def digest(x: NDArray[np.generic]) -> NDArray[np.uint8]:
    """SHA-256 of a tensor's bytes, uint8 (32,)."""
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(x).tobytes()).digest(), np.uint8)


def probe_image() -> bytes:
    """A synthetic PNG that any change of a preprocessing field alters.

    A gradient of another slope per channel, texture of every grain (each filter treats some grain
    differently from the others) and EXIF orientation 6. Integer arithmetic alone: the same pixels everywhere.
    """
    width, height = PROBE_SIZE
    y, x = np.mgrid[:height, :width].astype(np.uint32)
    texture = sum((_noise(x // grain, y // grain) * depth >> 8 for grain, depth in GRAINS), _speckle(x, y))
    channels = [x * a // width + y * b // height + texture for a, b in ((100, 20), (10, 90), (60, 40))]
    image = Image.fromarray((np.stack(channels, axis=-1) % 256).astype(np.uint8))
    exif = Image.Exif()
    exif[preprocess.EXIF_ORIENTATION] = 6
    out = BytesIO()
    image.save(out, "PNG", exif=exif)
    return out.getvalue()


def _noise(x: NDArray[np.uint32], y: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A value of 0..255 per position, without visible order: the products overflow on purpose."""
    mixed = x * np.uint32(2654435761) ^ y * np.uint32(2246822519)
    value: NDArray[np.uint32] = (mixed ^ mixed >> np.uint32(15)) * np.uint32(3266489917) >> np.uint32(24)
    return value


def _speckle(x: NDArray[np.uint32], y: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A bright pixel in every 32 or so, so that the PNG stays small."""
    return (_noise(y, x) < 8) * np.uint32(96)


def _write(golden: Golden) -> bytes:
    return npz.pack({field.name: getattr(golden, field.name) for field in fields(golden)})


def read_golden(data: bytes) -> Golden:
    """Read golden.npz; no pickles, nothing compressed, and every shape fits the others.

    Raises:
        BundleError: the file is not what `make_golden` writes.
    """
    try:
        golden = Golden(**npz.unpack(data, KINDS))
        _check_shapes(golden)
    except ValueError as error:
        raise BundleError("golden.npz cannot be read", str(error), "export the bundle again") from error
    return golden


def _check_shapes(g: Golden) -> None:
    n = len(g)
    if n < 1 or g.offsets.shape != (n + 1,) or g.inputs_sha256.shape != (n, 32) or len(g.outputs) != n:
        raise ValueError(f"its arrays disagree on the number of images, {n} by pixels")
    if g.offsets[0] != 0 or g.offsets[-1] != len(g.images) or (np.diff(g.offsets) <= 0).any():
        raise ValueError("offsets do not cut images into files")
