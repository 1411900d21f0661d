"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from shrink.errors import OutputError

AT_FDCWD, RENAME_EXCHANGE = -100, 2
OLD = "-old"  # end of the name that the content to be replaced has for a moment, where two names cannot be swapped

IsOurs = Callable[[Path], bool]
"""Whether an entry of an existing directory may be removed with it."""


@contextlib.contextmanager
def appears_whole(out: Path, *, replace: bool, is_ours: IsOurs) -> Iterator[Path]:
    """Yield an empty directory beside `out` that takes its name when the block ends well.

    Everything in it is synced before the rename, so after a kill or a power cut at any moment
    `out` is what it was before, or complete. What a killed run left beside it is removed by the next.

    Raises:
        OutputError: `out` is in the way (see `check_free`), or cannot be written.
    """
    out = out.resolve()  # what a link points to is replaced, not the link
    prefix = f".{out.name}.partial-"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out, prefix)
        check_free(out, replace=replace, is_ours=is_ours)
        with _locked(out.parent, prefix) as work:
            yield work
            _sync(work)
            _put(work, out)
            _sync_directory(out.parent)
    except OSError as error:
        raise OutputError(f"{out} cannot be written", str(error), "make room there, or choose another --out") from error


def check_free(out: Path, *, replace: bool, is_ours: IsOurs) -> None:
    """Refuse an output that is in the way, before any work is done for it.

    Raises:
        OutputError: `out` is a file; has content and `replace` is false; has content that is not ours; or
            lies where nothing can be written.
    """
    try:
        content = sorted(out.iterdir()) if out.exists() else []
    except NotADirectoryError as error:
        raise OutputError(f"{out} is a file", "the output is a directory", "choose another --out") from error
    except OSError as error:
        raise OutputError(f"{out} cannot be read", str(error), "choose another --out") from error
    if content and not replace:
        raise OutputError(f"{out} exists", "an export never mixes with another", "choose another --out, or add --force")
    if foreign := [path.name for path in content if not is_ours(path)]:
        why = f"it holds {foreign[0]!r}, which no export wrote, and --force removes the whole directory"
        raise OutputError(f"{out} is not an earlier export", why, "choose another --out, or empty that directory")
    _check_writable(out)


def _check_writable(out: Path) -> None:
    parent = next(path for path in out.resolve().parents if path.exists())
    if not parent.is_dir():
        raise OutputError(f"{out} cannot be made", f"{parent} is a file", "choose another --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{out} cannot be made", f"{parent} may not be written", "choose another --out")


@contextlib.contextmanager
def _locked(parent: Path, prefix: str) -> Iterator[Path]:
    """A new directory, locked for as long as this process lives; removed in the end if it is still there."""
    work = parent / f"{prefix}{secrets.token_hex(4)}"
    work.mkdir()
    descriptor = os.open(work, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield work
    finally:
        os.close(descriptor)
        shutil.rmtree(work, ignore_errors=True)  # after an exchange this is the old content


def _remove_leftovers(out: Path, prefix: str) -> None:
    """Undo what a killed run left beside `out`; a run that lives holds a lock on its directory."""
    for path in sorted(out.parent.glob(f"{prefix}*")):
        if path.name.endswith(OLD) and not out.exists():
            path.rename(out)
        elif not _is_locked(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    """The kernel drops a lock with the process that held it, however that ended."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _put(work: Path, out: Path) -> None:
    if not out.exists():
        work.rename(out)
    elif not any(out.iterdir()):
        work.replace(out)  # POSIX: an empty directory is replaced
    elif not _exchange(work, out):
        aside = work.with_name(work.name + OLD)
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


def write_whole(path: Path, data: bytes) -> None:
    """A file that appears whole: written beside its name, synced, then renamed.

    Raises:
        OutputError: it cannot be written.
    """
    work = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with work.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        work.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written", str(error.strerror), "name a file elsewhere") from error
    finally:
        work.unlink(missing_ok=True)
