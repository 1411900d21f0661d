"""Images as arrays in a .npz file."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shrink.data.images import Arrays, Images, Parts, from_source
from shrink.errors import DataError


@dataclass(frozen=True, slots=True)
class Names:
    """The arrays of one part: images (n, H, W), (n, H, W, 1) or (n, H, W, 3) uint8, and labels (n,)."""

    images: str
    labels: str
    ref: str  # an image is called ref/17


LAYOUTS = (  # (train part, evaluation part)
    (Names("x_train", "y_train", "train"), Names("x_test", "y_test", "test")),
    (Names("calib_images", "calib_labels", "calib"), Names("eval_images", "eval_labels", "eval")),
)


def read_npz(name: str, file: Path) -> Parts:
    """Both parts, and the class names of the array `classes` if there is one."""
    arrays = _arrays(file)
    for train, evaluation in LAYOUTS:
        if {train.images, train.labels, evaluation.images, evaluation.labels} <= arrays.keys():
            classes = _classes(file, arrays)
            parts = [_part(name, file, arrays, names, classes) for names in (train, evaluation)]
            return Parts(parts[0], parts[1])
    wanted = " or ".join(",".join((a.images, a.labels, b.images, b.labels)) for a, b in LAYOUTS)
    fix = f"save them with np.savez_compressed as {wanted}, and classes"
    raise DataError(f"{file} lacks the arrays of a data set", f"it holds {', '.join(arrays) or 'nothing'}", fix)


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    try:
        # opened here: numpy leaves a damaged file open
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        fix = "save plain number and text arrays with np.savez_compressed, or copy the file again"
        raise DataError(f"{file} cannot be read as a .npz", str(error).splitlines()[0][:200], fix) from error


def _part(name: str, file: Path, arrays: Mapping[str, NDArray[Any]], names: Names, classes: list[str] | None) -> Images:
    pixels, labels = arrays[names.images], arrays[names.labels]
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    wrong = {
        f"{names.images} is {pixels.dtype}, not uint8 0..255": pixels.dtype != np.uint8,
        f"{names.images} has shape {pixels.shape}, not (n, H, W) or (n, H, W, 3)": not (
            pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)
        ),
        f"{names.images} has no pixels": pixels.size == 0,
        f"{names.labels} is {labels.dtype}, not whole numbers": labels.dtype.kind not in "iu",
        f"{names.labels} has shape {labels.shape} for {len(pixels)} images": labels.shape != (len(pixels),),
        f"{names.labels} has labels below 0 or absurdly large": labels.dtype.kind in "iu"
        and bool(((labels < 0) | (labels > 2**31)).any()),
        f"{names.labels} has labels above the {len(classes or ())} classes": classes is not None
        and labels.dtype.kind in "iu"
        and bool((labels >= len(classes)).any()),
    }
    for why, is_wrong in wrong.items():
        if is_wrong:
            fix = "save the decoded images as uint8, and one whole number per image"
            raise DataError(f"{file} does not hold labelled images", why, fix)
    refs = [f"{names.ref}/{index}" for index in range(len(pixels))]
    return from_source(name, Arrays(pixels), refs, labels=labels.astype(np.int64), classes=classes)


def _classes(file: Path, arrays: Mapping[str, NDArray[Any]]) -> list[str] | None:
    if "classes" not in arrays:
        return None
    classes = arrays["classes"]
    if classes.ndim != 1 or classes.dtype.kind != "U":
        why = f"it is {classes.dtype} of shape {classes.shape}"
        raise DataError(f"the array 'classes' of {file} is not a list of names", why, "save np.array(['cat', 'dog'])")
    return [str(label) for label in classes]
