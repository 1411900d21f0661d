"""The kinds of data a user can name: a folder, a CSV, arrays in a .npz, or a built-in name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shrink.data.arrays import read_npz
from shrink.data.folder import read_folder
from shrink.data.images import Parts
from shrink.data.table import read_csv
from shrink.errors import DataError, nearest

BUILTIN = {"fashion-mnist": "fashion_mnist.npz"}  # name -> file beside this one
FOLDER = "a folder"
KINDS: dict[str, Callable[[str, Path], Parts]] = {FOLDER: read_folder, ".csv": read_csv, ".npz": read_npz}


def read(data: str) -> Parts:
    """Open the data of that path or built-in name; no image is decoded yet."""
    path = Path(__file__).with_name(BUILTIN[data]) if data in BUILTIN else Path(data)
    try:
        return _read(data, path)
    except OSError as error:
        why = f"{error.filename or path}: {error.strerror or error}"
        raise DataError(f"the data {data} cannot be read", why, "check the path and its permissions") from error


def _read(data: str, path: Path) -> Parts:
    if not path.exists():
        fix = f"check the path; of the built-in data sets {nearest(data, BUILTIN)}"
        raise DataError(f"there is no data {data!r}", f"{path} does not exist", fix)
    kind = FOLDER if path.is_dir() else path.suffix.lower()
    if kind not in KINDS:
        known = "data is a folder of images, a .csv with the columns path,label, or a .npz"
        raise DataError(f"{data} is not data that can be read", known, "give one of these, or a built-in name")
    return KINDS[kind](data, path)
