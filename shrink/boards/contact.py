"""Runs on the board, sent over its own standard input: the standard library alone, one process, no file of its own.

It speaks JSON lines. Host: what is needed. Board: what it is, what it has, where to put the rest. Host, when all is
there: what to do. Board: how far it is, then the result. As long as it lives it holds a lock on the directory of its
run; it ends and removes that directory when its standard input ends or falls silent. What a power cut left behind
has no lock, and is removed at the next contact.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

SILENCE_S = 20.0  # without a word from the host it is gone
BEAT_S = 2.0
KEPT = 16  # files in the store, the last used
PACKAGES = ("numpy", "pillow", "msgspec", "ai-edge-litert", "tflite-runtime", "onnxruntime")


class Leash:
    """Ends the process when the host is gone, and lets the host know that the process lives."""

    def __init__(self, stream: BinaryIO, say: Callable[[dict[str, Any]], None], give_up: Callable[[], None]) -> None:
        self.lines: list[bytes] = []
        self.heard = time.monotonic()
        self.arrived = threading.Condition()
        self.stream, self.say, self.give_up = stream, say, give_up

    def start(self) -> None:
        for work in (self._listen, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def next_line(self) -> bytes:
        with self.arrived:
            self.arrived.wait_for(lambda: bool(self.lines))
            return self.lines.pop(0)

    def _listen(self) -> None:
        for line in self.stream:
            self.heard = time.monotonic()
            if line.strip():
                with self.arrived:
                    self.lines.append(line)
                    self.arrived.notify()
        self.give_up()

    def _beat(self) -> None:
        while time.monotonic() - self.heard < SILENCE_S:
            time.sleep(BEAT_S)
            try:
                self.say({"beat": 1})
            except OSError:
                break
        self.give_up()


class Run:
    """The directory of this run, locked while the process lives."""

    def __init__(self, base: Path) -> None:
        self.store, runs = base / "store", base / "runs"
        for folder in (self.store, runs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.removed = sum(map(self._sweep, sorted(runs.iterdir())))
        self.folder = runs / secrets.token_hex(8)
        self.folder.mkdir(mode=0o700)
        self.lock = self._locked(self.folder)

    def end(self) -> None:
        shutil.rmtree(str(self.folder), ignore_errors=True)

    def _locked(self, folder: Path) -> int | None:
        handle = os.open(str(folder), os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def _sweep(self, folder: Path) -> int:
        try:
            handle = self._locked(folder)
        except OSError:
            return 0
        if handle is None:  # another run, alive
            return 0
        shutil.rmtree(str(folder), ignore_errors=True)
        os.close(handle)
        return 1

    def keep(self, digests: list[str]) -> None:
        """Move what has arrived into the store, if it is what it is called; what was longest unused makes room."""
        for digest in digests:
            arrived, kept = self.folder / digest, self.store / digest
            if arrived.exists():
                if hashlib.sha256(arrived.read_bytes()).hexdigest() != digest:
                    raise ValueError("a file arrived damaged: " + digest)
                arrived.replace(kept)
            os.utime(str(kept))
        used = sorted(self.store.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in used[max(KEPT, len(digests)) :]:
            file.unlink()


def installed() -> dict[str, str]:
    """Name -> version of the packages that matter."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def main() -> None:
    """One visit."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints must not come between the lines
    speaking = threading.Lock()

    def say(record: dict[str, Any]) -> None:
        with speaking:
            out.write(json.dumps(record) + "\n")
            out.flush()

    asked = json.loads(sys.stdin.buffer.readline())
    run = Run(Path(asked["base"]).expanduser())

    def give_up() -> None:
        run.end()
        os._exit(3)

    leash = Leash(sys.stdin.buffer, say, give_up)
    leash.start()
    try:
        say(
            {
                "hello": {
                    "python": list(sys.version_info[:3]),
                    "machine": platform.machine(),
                    "packages": installed(),
                    "run": str(run.folder),
                    "missing": [digest for digest in asked["files"] if not (run.store / digest).exists()],
                    "free_bytes": shutil.disk_usage(str(run.folder)).free,
                    "removed_runs": run.removed,
                }
            }
        )
        work = json.loads(leash.next_line())
        run.keep(asked["files"])
        sys.path.insert(0, str(run.store / work["runner"]))
        from device_runner.probe import serve

        arguments = [str(run.store / word[1:]) if word.startswith("@") else word for word in work["arguments"]]
        say(serve.serve(arguments, say))
    except BaseException as error:  # the border to the host, which explains it to the user
        say({"failed": [type(error).__name__, str(error)]})
    finally:
        run.end()
        out.flush()
        os._exit(0)  # threads of runtimes are not waited for


if __name__ == "__main__":
    main()
