"""The files of a bundle, from a directory or a stored zip, each read once and none trusted.

Flat names only, regular files only, no links, no duplicates, no compression, bounded sizes. Nothing is
ever written, so a hostile archive has nowhere to go.
"""

from __future__ import annotations

import os
import stat
import zipfile
from io import BytesIO
from pathlib import Path

from device_runner.errors import BundleError
from device_runner.manifest import FLAT_NAME

MAX_FILES = 64
MAX_BYTES = 512 * 1024 * 1024
"""Largest bundle, all files together."""


def damaged(what: str, why: str) -> BundleError:
    """A refusal whose cure is another copy."""
    return BundleError(what, why, "copy the bundle again, or export it again")


def read(path: Path) -> dict[str, bytes]:
    """Every file of a bundle by name.

    Raises:
        BundleError: names the file that breaks a rule.
    """
    if not path.exists():
        raise BundleError(f"there is no bundle at {path}", "no such directory or file", "check the path")
    try:
        return _read_directory(path) if path.is_dir() else _read_zip(path)
    except (OSError, ValueError) as error:
        raise damaged(f"{path} cannot be read", _reason(error)) from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_directory(path: Path) -> dict[str, bytes]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files: dict[str, bytes] = {}
        for name in _checked_names(os.listdir(folder)):  # noqa: PTH208 - of the folder held open, not of its path
            files[name] = _read_file(name, MAX_BYTES - sum(map(len, files.values())), folder)
        return files
    finally:
        os.close(folder)


def _read_file(name: str, room: int, folder: int | None = None, follow: int = os.O_NOFOLLOW) -> bytes:
    """Read one regular file of at most `room` bytes, without waiting for a pipe to be written."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow, dir_fd=folder)
    except OSError as error:
        raise damaged(f"{name} cannot be opened as a plain file", _reason(error)) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise damaged(f"{name} is not a regular file", "a bundle holds neither folders, links nor devices")
        if status.st_size > room:
            raise too_large(name, status.st_size)
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(status.st_size + 1)  # not `room`: as much would be allocated, and moved, at once
    finally:
        os.close(handle)
    if len(data) > status.st_size:
        raise damaged(f"{name} grew while it was read", "somebody is writing to it")
    return data


def too_large(name: str, size: int) -> BundleError:
    """Refusal of a file that would not fit."""
    return damaged(f"{name} is too large: {size} bytes", f"a bundle holds at most {MAX_BYTES} bytes")


def _checked_names(names: list[str]) -> list[str]:
    if len(names) > MAX_FILES:
        raise damaged(f"the bundle holds {len(names)} files", f"at most {MAX_FILES} are allowed")
    seen: set[str] = set()
    for name in names:
        if not FLAT_NAME.fullmatch(name):
            raise damaged(f"{name!r} is not a flat file name", f"names match {FLAT_NAME.pattern}")
        if name in seen:
            raise damaged(f"{name} is in the bundle twice", "it is unclear which one is meant")
        seen.add(name)
    return sorted(names)


def _read_zip(path: Path) -> dict[str, bytes]:
    data = _read_file(str(path), MAX_BYTES, follow=0)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = archive.infolist()
            names = _checked_names([entry.orig_filename for entry in entries])
            for entry in entries:
                _check_entry(entry)
            if sum(entry.file_size for entry in entries) > len(data):
                raise damaged(f"{path} holds less than its entries claim", "entries of the zip overlap")
            return {name: archive.read(name) for name in names}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise damaged(f"{path} is not a sound zip", str(error) or "it ends too early") from error


def _check_entry(entry: zipfile.ZipInfo) -> None:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise damaged(f"{entry.filename} is compressed in the zip", "a bundle zip stores its files (zip -0)")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise damaged(f"{entry.filename} is not a regular file", "a bundle holds neither folders, links nor devices")
