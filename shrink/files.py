"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shrink.errors import OutputError

AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def appears_whole(out: Path, *, replace: bool) -> Iterator[Path]:
    """Yield an empty directory beside `out` that takes its name when the block ends well.

    Everything in it is synced before the rename, so after a kill or a power cut at any moment
    `out` is what it was before, or complete. What a killed run left beside it is removed by the next.

    Raises:
        OutputError: `out` exists and `replace` is false, or its parent cannot be written.
    """
    check_free(out, replace=replace)
    prefix = f".{out.name}.partial-"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out.parent, prefix)
        work = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=out.parent))
        work.chmod(0o755)
    except OSError as error:
        raise OutputError(f"{out} cannot be written", str(error), "choose another --out") from error
    try:
        yield work
        _sync(work)
        _put(work, out)
        _sync_directory(out.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)  # after an exchange this is the old content


def check_free(out: Path, *, replace: bool) -> None:
    """Refuse an output that is in the way, before any work is done for it."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file", "the output is a directory", "choose another --out")
    if out.exists() and not replace and any(out.iterdir()):
        raise OutputError(f"{out} exists", "an export never mixes with another", "choose another --out, or add --force")


def _put(work: Path, out: Path) -> None:
    if not out.exists():
        work.rename(out)
    elif not any(out.iterdir()):
        work.replace(out)  # POSIX: an empty directory is replaced
    elif not _exchange(work, out):
        aside = work.with_name(work.name + "-old")
        out.rename(aside)
        work.rename(out)
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two directories in one step (Linux); False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    for path in parent.glob(f"{prefix}*"):
        owner = path.name.removeprefix(prefix).partition("-")[0]
        if not (owner.isdigit() and _alive(int(owner))):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            with (Path(folder) / name).open("rb") as file:
                os.fsync(file.fileno())
        _sync_directory(Path(folder))


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
