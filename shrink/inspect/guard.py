"""Inspection of files nobody vouches for, in a child process: a crafted file can end it, never its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

import shrink
from shrink.errors import RequestError
from shrink.inspect import kind
from shrink.inspect.ops import Format, printable
from shrink.inspect.truth import Inspection

MAX_BYTES = 2**31 - 1  # what both formats can address
TIMEOUT_S = 300.0
REFUSED = 2  # exit code of a child that says why
FIX = "do not run this file; fetch it again from where it comes from"


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(code).name
    except ValueError:
        return f"signal {code}"


def _environment(folder: str) -> dict[str, str]:
    """An empty home, one thread, and this very copy of the package."""
    root = str(Path(shrink.__path__[0]).parent)
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")}
    path = os.pathsep.join([root, *(entry for entry in sys.path if entry)])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return keep | threads | {"HOME": folder, "TMPDIR": folder, "PYTHONPATH": path}


def _run(data: bytes, fmt: Format, name: str, timeout_s: float) -> subprocess.CompletedProcess[bytes]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-P", "-m", "shrink.inspect.child", fmt, str(len(data)), name]
        return subprocess.run(command, input=data, capture_output=True, cwd=folder, env=_environment(folder),
                              timeout=timeout_s, check=False)  # fmt: skip


def _failure(name: str, run: subprocess.CompletedProcess[bytes]) -> RequestError:
    """The error of a child that gave no inspection."""
    if run.returncode == REFUSED:
        try:
            return RequestError(*msgspec.json.decode(run.stdout, type=tuple[str, str, str]))
        except msgspec.DecodeError:
            pass
    if run.returncode < 0:
        why = f"it died of {_signal_name(-run.returncode)}"
        return RequestError(f"{name} kills the process that reads it", why, FIX)
    lines = run.stderr.decode("utf-8", "replace").strip().splitlines() or ["the child process gave no answer"]
    return RequestError(f"{name} cannot be inspected", printable(lines[-1]), FIX)


def check(data: bytes, fmt: Format, name: str = "the model", *, timeout_s: float = TIMEOUT_S) -> Inspection:
    """Inspect bytes of unknown origin in a child process with limits on memory, time and written files.

    Raises:
        RequestError: it is damaged, of another format, refused by the runtime, too slow, or it killed the child.
    """
    name = printable(name, 80)
    kind.require(data, fmt, name)
    try:
        run = _run(data, fmt, name, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise RequestError(f"{name} takes too long to read", f"no answer within {timeout_s:g} s", FIX) from error
    if run.returncode:
        raise _failure(name, run)
    try:
        return msgspec.json.decode(run.stdout, type=Inspection)
    except msgspec.DecodeError as error:
        raise RequestError(f"{name} cannot be inspected", f"the child's answer is damaged: {error}", FIX) from error


def inspect_untrusted(path: Path, *, timeout_s: float = TIMEOUT_S) -> Inspection:
    """`check` of a file whose name says its format.

    Raises:
        RequestError: as `check`; and when the path is no regular file, too large, or not named .tflite or .onnx.
    """
    fmt = kind.of_name(path.name)
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise RequestError(f"{path} cannot be inspected", "it is no regular file of at most 2 GiB",
                               "give a model file")  # fmt: skip
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read", str(error.strerror), "give the path of a model file") from error
    return check(data, fmt, path.name, timeout_s=timeout_s)
