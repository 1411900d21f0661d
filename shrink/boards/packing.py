"""What is sent to a board: a few zips of stored files, named by their SHA-256, so that nothing is sent twice."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import device_runner

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: the same files give the same bytes


def pack(content: Mapping[str, bytes], folder: Path) -> str:
    """Write the files as one zip into the folder, named by its SHA-256, and give that."""
    work = folder / "packing"
    with zipfile.ZipFile(work, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(content):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content[name])
    digest = hashlib.sha256(work.read_bytes()).hexdigest()
    work.replace(folder / digest)
    return digest


def runner_files() -> dict[str, bytes]:
    """The runner, as a zip that Python imports from."""
    root = Path(device_runner.__file__).parent
    files = (file for file in sorted(root.rglob("*.py")) if "build" not in file.relative_to(root).parts)
    return {f"device_runner/{file.relative_to(root).as_posix()}": file.read_bytes() for file in files}
