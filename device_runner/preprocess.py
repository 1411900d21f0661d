"""From an image file to the tensor the model takes, in the order the manifest states it.

    bytes --decode--> image --pixels--> uint8 (H, W, C) --normalize--> float32 (H, W, C) --encode--> (1, ...)

A model that takes pixels normalizes them itself: there, `normalize` is left out.
The toolkit calibrates and judges with these same functions, so the pixels on the device are the
pixels that were judged. Rounding follows torchvision; `tests/device_runner` compares the two.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from device_runner.errors import BundleError, ImageError
from device_runner.manifest import Input, Preprocess

FORMATS = ("JPEG", "PNG", "BMP")
MAX_PIXELS = 25_000_000
"""Largest image that is decoded, and largest intermediate a resize may make."""

EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
QUANTIZED = {"int8": np.int8, "uint8": np.uint8}


def decode(data: bytes | memoryview) -> Image.Image:
    """Decode a JPEG, PNG or BMP file; its EXIF stays readable on the result.

    Raises:
        ImageError: not one of these formats, truncated or damaged, or above MAX_PIXELS.
    """
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)  # reads the header only
        _check_size(image.size)
        image.load()
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(str(error)) from error
    except Exception as error:  # the border to the decoders, which promise no class of error
        raise ImageError(
            "the image cannot be decoded",
            f"{error or type(error).__name__}".replace("\n", " "),
            f"send a complete {', '.join(FORMATS)} file",
        ) from error
    return image


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("the image is empty", f"it is {width}x{height} pixels", "send an image with pixels")
    if width * height > MAX_PIXELS:
        raise _too_large(f"it is {width}x{height} pixels")


def _too_large(why: str) -> ImageError:
    return ImageError("the image is too large", why, f"send at most {MAX_PIXELS} pixels")


def pixels(image: Image.Image, p: Preprocess) -> NDArray[np.uint8]:
    """Turn upright, convert the colours, resize and crop.

    Colours are converted as Pillow's `convert` does it, as in training: transparency is dropped, and
    16-bit grey is clipped, not scaled.

    Returns:
        uint8, shape (H, W, C), channels in the order of `p.color`.

    Raises:
        ImageError: so elongated that resizing its shorter side needs more than MAX_PIXELS.
    """
    image = upright(image) if p.exif else image
    image = image.convert("L" if p.color == "L" else "RGB")
    image = image.resize(resized(image.size, p), FILTERS[p.filter])
    if p.crop is not None:
        image = centre_crop(image, p.crop)
    array = np.asarray(image)
    if p.color == "L":
        array = array[:, :, np.newaxis]
    return np.ascontiguousarray(array[:, :, ::-1] if p.color == "BGR" else array)


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; an image whose EXIF is unreadable is taken as it lies."""
    try:
        method = UPRIGHT.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # EXIF is a TIFF of its own, and its reader promises no class of error either
        return image
    return image if method is None else image.transpose(method)


def resized(size: tuple[int, int], p: Preprocess) -> tuple[int, int]:
    """Width and height after the resize, rounded as torchvision rounds: the longer side is cut, not rounded."""
    if p.resize == "exact":
        return p.size[1], p.size[0]
    width, height = size
    if width <= height:
        result = p.size[0], int(p.size[0] * height / width)
    else:
        result = int(p.size[0] * width / height), p.size[0]
    if result[0] * result[1] > MAX_PIXELS:
        raise ImageError(
            f"the image is too elongated: {width}x{height} pixels",
            f"resized so that its shorter side is {p.size[0]} it would be {result[0]}x{result[1]}",
            f"crop it first; at most {MAX_PIXELS} pixels are resized",
        )
    return result


def centre_crop(image: Image.Image, crop: tuple[int, int]) -> Image.Image:
    """Cut (height, width) from the centre; a smaller image is padded with zeros first, as torchvision does."""
    height, width = crop
    lack_x, lack_y = max(width - image.width, 0), max(height - image.height, 0)
    if lack_x or lack_y:
        padded = Image.new(image.mode, (image.width + lack_x, image.height + lack_y))
        padded.paste(image, (lack_x // 2, lack_y // 2))
        image = padded
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)  # half to even
    return image.crop((left, top, left + width, top + height))


def normalize(pixels: NDArray[np.uint8], p: Preprocess) -> NDArray[np.float32]:
    """(pixels / 255 - mean) / std in float32, the same steps and bits as torchvision's.

    Args:
        pixels: uint8, shape (H, W, C).
        p: mean and std are per channel, of pixels in 0..1.
    """
    x = pixels.astype(np.float32)
    x /= np.float32(255)
    x -= np.asarray(p.mean, np.float32)
    x /= np.asarray(p.std, np.float32)
    return x


def tensor(pixels: NDArray[np.uint8], p: Preprocess, spec: Input) -> NDArray[np.generic]:
    """The model's input from pixels (H, W, C); a model that takes pixels gets these very bytes."""
    return encode(pixels if spec.values == "pixels" else normalize(pixels, p), spec)


def encode(x: NDArray[np.float32] | NDArray[np.uint8], spec: Input) -> NDArray[np.generic]:
    """Lay out and, if the input is quantized, round: code = clip(round(x / scale) + zero_point), half to even.

    Args:
        x: normalized, or uint8 pixels if the model takes those; shape (H, W, C) or (N, H, W, C).
        spec: the model's input; its batch dimension is not compared.

    Returns:
        shape (N, ...) in the layout and dtype of `spec`; N is 1 for a single image.
    """
    batch: NDArray[Any] = x[np.newaxis] if x.ndim == 3 else x
    if spec.layout == "NCHW":
        batch = batch.transpose(0, 3, 1, 2)
    if batch.shape[1:] != spec.shape[1:]:
        raise BundleError(
            f"preprocessing gives shape {batch.shape[1:]}, the model takes {spec.shape[1:]}",
            "the manifest's preprocess and input contradict each other",
            "export the bundle again",
        )
    if spec.values == "pixels":
        return np.ascontiguousarray(_levels(batch, spec))
    return np.ascontiguousarray(batch if spec.dtype == "float32" else _quantize(batch, spec))


def _levels(x: NDArray[np.uint8], spec: Input) -> NDArray[np.generic]:
    """Grey levels as codes: the same bytes, as int8 128 lower."""
    assert x.dtype == np.uint8, "pixels are not normalized"
    return x if spec.dtype == "uint8" else (x ^ np.uint8(128)).view(np.int8)


def _quantize(x: NDArray[np.float32], spec: Input) -> NDArray[np.generic]:
    assert spec.scale is not None and spec.zero_point is not None, "a quantized input has a scale"
    kind = QUANTIZED[spec.dtype]
    codes = np.rint(x / np.float32(spec.scale)) + np.float32(spec.zero_point)
    clipped: NDArray[np.generic] = np.clip(codes, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
    return clipped


def prepare(data: bytes, p: Preprocess) -> NDArray[np.float32]:
    """An image file to normalized float32, shape (H, W, C)."""
    return normalize(pixels(decode(data), p), p)
