"""The images of a measurement: a zip of stored files, or a folder of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from device_runner.errors import ImageError

MAX_BYTES = 2 * 1024**3  # of all images together
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def read_images(path: Path) -> list[tuple[str, bytes]]:
    """Every image file as (name, bytes), sorted by name.

    Raises:
        ImageError: there are none, they cannot be read, or they are compressed or too large.
    """
    try:
        found = _from_folder(path) if path.is_dir() else _from_zip(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ImageError(f"no images can be read from {path}", str(error), "give a folder or a zip of them") from error
    if not found:
        raise ImageError(f"{path} holds no images", f"none ends in {', '.join(SUFFIXES)}", "give another folder")
    return found


def _from_folder(path: Path) -> list[tuple[str, bytes]]:
    return [(file.name, file.read_bytes()) for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]


def _from_zip(path: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if one.filename.lower().endswith(SUFFIXES)]
        if any(one.compress_type != zipfile.ZIP_STORED for one in members):
            raise ImageError(f"{path} is compressed", "only stored files are read", "use `zip -0`")
        if sum(one.file_size for one in members) > MAX_BYTES:
            raise ImageError(f"the images in {path} are too large", "together over 2 GiB", "give fewer images")
        return sorted((one.filename, archive.read(one)) for one in members)
