"""The libraries' evaluation transforms, restated as the runner's `Preprocess`.

The numbers follow torchvision's `ImageClassification` preset and timm's `transforms_imagenet_eval`
to the integer; the tests compare the pixels. EXIF orientation is applied: both libraries start
from an image that has already been decoded and say nothing of it, and a camera's photographs carry it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec

from device_runner.manifest import Preprocess
from shrink.errors import ModelError

CHANNELS: Mapping[str, int] = {"RGB": 3, "BGR": 3, "L": 1}
COLORS: Mapping[int, Literal["RGB", "L"]] = {3: "RGB", 1: "L"}
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
FIX = "give the preprocessing in full as [preprocess] in the recipe"


def from_torchvision(transforms: Any) -> Preprocess:
    """From `Weights.transforms()`: shorter side to resize_size, centre crop to crop_size."""
    resize, crop = int(transforms.resize_size[0]), int(transforms.crop_size[0])
    return _checked(
        resize="shorter",
        size=(resize, resize),
        interpolation=transforms.interpolation.value,
        crop=(crop, crop),
        mean=transforms.mean,
        std=transforms.std,
    )


def from_timm(config: Mapping[str, Any]) -> Preprocess:
    """From the dict of `timm.data.resolve_data_config`, as `create_transform(**config)` would use it."""
    _, height, width = config["input_size"]
    crop_pct, mode = config["crop_pct"], config["crop_mode"] or "center"
    scale = (math.floor(height / crop_pct), math.floor(width / crop_pct))
    if mode == "border":
        raise ModelError("this model's transform pads the image to a square (crop_mode 'border')", _LIMIT, FIX)
    if mode != "squash" and scale[0] != scale[1]:
        raise ModelError(f"this model's transform crops {height}x{width}, which is not square", _LIMIT, FIX)
    return _checked(
        resize="exact" if mode == "squash" else "shorter",
        size=scale,
        interpolation=config["interpolation"],
        crop=None if mode == "squash" and scale == (height, width) else (height, width),
        mean=config["mean"],
        std=config["std"],
    )


_LIMIT = "the device runner resizes the shorter side or both sides, then crops the centre"


def check(preprocess: Preprocess) -> Preprocess:
    """The same preprocessing, if its parts fit each other."""
    channels, size, crop = CHANNELS[preprocess.color], preprocess.size, preprocess.crop
    wrong = {
        f"mean has {len(preprocess.mean)} numbers for {channels} channels": len(preprocess.mean) != channels,
        f"std has {len(preprocess.std)} numbers for {channels} channels": len(preprocess.std) != channels,
        f"std is {preprocess.std}, and must be above 0": not all(value > 0 for value in preprocess.std),
        f"size is {size}, and must be square to resize the shorter side": preprocess.resize == "shorter"
        and size[0] != size[1],
        "without a crop, resizing the shorter side gives images of many shapes": preprocess.resize == "shorter"
        and crop is None,
    }
    for why, is_wrong in wrong.items():
        if is_wrong:
            raise ModelError("the preprocessing does not fit together", why, FIX)
    return preprocess


def input_shape(preprocess: Preprocess) -> tuple[int, int, int, int]:
    """What the model is given for one image: (1, C, H, W)."""
    height, width = preprocess.crop or preprocess.size
    return (1, CHANNELS[preprocess.color], height, width)


def at_side(preprocess: Preprocess, side: int) -> Preprocess:
    """The same part of the picture in another number of pixels.

    >>> vit = Preprocess(color="L", exif=True, resize="shorter", size=(256, 256), filter="bilinear", crop=(224, 224),
    ...                  mean=(0.5,), std=(0.5,))
    >>> at_side(vit, 112).size, at_side(vit, 112).crop
    ((128, 128), (112, 112))

    Raises:
        ModelError: the image is not square.
    """
    height, width = preprocess.crop or preprocess.size
    if height != width:
        why = f"the model takes {height} x {width} images, and a resolution is the side of a square"
        raise ModelError(f"there is no resolution of {side} pixels", why, FIX)
    scaled = (round(preprocess.size[0] * side / height), round(preprocess.size[1] * side / height))
    return msgspec.structs.replace(preprocess, size=scaled, crop=None if preprocess.crop is None else (side, side))


def _checked(
    *,
    resize: Literal["shorter", "exact"],
    size: tuple[int, int],
    interpolation: str,
    crop: tuple[int, int] | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Preprocess:
    if interpolation not in FILTERS:
        raise ModelError(
            f"this model's transform resizes with {interpolation!r}", f"the runner has {', '.join(FILTERS)}", FIX
        )
    if len(mean) not in COLORS:
        raise ModelError(f"this model's mean has {len(mean)} channels", "an image has 1 or 3", FIX)
    return check(
        Preprocess(
            color=COLORS[len(mean)],
            exif=True,
            resize=resize,
            size=size,
            filter=cast(Any, interpolation),
            crop=crop,
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
        )
    )
