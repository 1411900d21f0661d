"""The few file operations that the store is made of; each is one step that power can fail after.

Every step is announced to `before`, so that a test can end the process, or the disk, at each of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

NO_POWER_SAFE_RENAME = ("vfat", "msdos", "exfat")
MOUNTS = Path("/proc/self/mounts")


class Disk:
    """Writes so that what is there after a power loss is the old or the new, never a mixture."""

    def __init__(self, before: Callable[[str], None] = lambda step: None) -> None:
        self._before = before

    def make_directory(self, path: Path) -> None:
        """And sync its parent."""
        self._before("mkdir")
        path.mkdir(mode=0o755)
        self.sync(path.parent)

    def write(self, path: Path, data: bytes) -> None:
        """A new file, on the disk when this returns; its name only after `sync` of the directory."""
        self._before("create")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                self._before("write")
                view = view[os.write(fd, view[: 1 << 20]) :]
            self._before("fsync")
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync(self, folder: Path) -> None:
        """Make the names in a directory last."""
        self._before("fsync directory")
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Atomic; replaces a file."""
        self._before("rename")
        source.replace(target)
        self.sync(target.parent)

    def remove(self, path: Path) -> None:
        """A file or a directory, if it is there."""
        self._before("remove")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def filesystem_problem(path: Path, table: Path = MOUNTS) -> str | None:
    """The name of a file system whose rename does not survive power loss; None if it is not known to be one."""
    try:
        entries = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    real = path.resolve()
    mounts = [(e[1], e[2]) for e in entries if real.is_relative_to(e[1].replace("\\040", " "))]
    kind = max(reversed(mounts), key=lambda m: len(m[0]), default=("", ""))[1]  # of two at one place the last is seen
    return kind if kind in NO_POWER_SAFE_RENAME else None
