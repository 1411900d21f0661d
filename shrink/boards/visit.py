"""One visit to a board: say hello, send what it lacks, let it work, and never wait for one that is gone."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shrink.boards.board import Board
from shrink.errors import BoardError, LinkError

SILENCE_S = 25.0  # the board says something every 2 s as long as it lives
BEAT_S = 2.0
GRACE_S = 2.0  # for a client to end by itself
MAX_LINE = 64 * 1024 * 1024  # a record of 10,000 images has a tenth of it
MAX_STDERR = 64 * 1024
ROOM = 32 * 1024 * 1024  # bytes that must be left there
BOOT = "import sys;exec(compile(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())),'contact','exec'))"

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hello:
    """What the board said of itself."""

    python: tuple[int, ...]
    machine: str
    packages: dict[str, str]
    run: str  # directory there, for what is sent
    missing: tuple[str, ...]
    free_bytes: int
    removed_runs: int  # directories that dead runs had left


class Visit:
    """A program on the board that lives as long as this object is open; the board cleans up when it ends.

    Args:
        board: where.
        files: SHA-256 -> local file; what must be there.
    """

    def __init__(self, board: Board, files: Mapping[str, Path]) -> None:
        self._board, self._files = board, files
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._heard = time.monotonic()
        self._closed = threading.Event()

    def __enter__(self) -> Visit:
        self._stderr = tempfile.TemporaryFile()
        try:
            self._process = self._start(self._board.running("-u", "-c", BOOT))
        except BaseException:
            self._stderr.close()
            raise
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Closing its input ends the program there, which cleans up."""
        self._closed.set()
        with suppress(OSError):
            self._input.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(GRACE_S)
        if not self._reader.is_alive():  # unless a child of the client still holds its end
            self._output.close()
        self._stderr.close()

    def hello(self) -> Hello:
        """Send the program and what is needed; hear what is there.

        Raises:
            BoardError: the board cannot be reached or used.
        """
        script = Path(__file__).with_name("contact.py").read_bytes()
        self._send(f"{len(script)}\n".encode() + script)
        self._send_json({"base": self._board.base, "files": list(self._files)})
        for event in self._events():
            if "hello" in event:
                return _hello(event["hello"])
        raise self._gone()

    def send(self, hello: Hello) -> int:
        """Copy what the board lacks; bytes sent.

        Raises:
            BoardError: there is no room, or the copy is refused.
            LinkError: the board fell silent.
        """
        wanted = [self._files[digest] for digest in hello.missing if digest in self._files]
        size = sum(file.stat().st_size for file in wanted)
        if size + ROOM > hello.free_bytes:
            why = f"{hello.free_bytes // 2**20} MB are free there, and {(size + ROOM) // 2**20} MB are needed"
            raise BoardError(f"{self._board.url} has too little room", why, f"make room below {self._board.base} there")
        if wanted:
            self._copy([str(file) for file in wanted], hello.run)
        return size

    def work(self, runner: str, arguments: list[str]) -> Iterator[Event]:
        """Let the runner there measure; its progress, and the result last.

        Args:
            runner: SHA-256 of the runner's zip.
            arguments: of `device_runner probe`; "@" and a SHA-256 is the path of that file there.

        Raises:
            LinkError: the board fell silent or the connection ended before the result.
        """
        self._send_json({"runner": runner, "arguments": arguments})
        for event in self._events():
            yield event
            if event.keys() & {"result", "problem", "failed"}:
                return
        raise self._lost()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self._board.environment}
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment
            )
        except OSError as error:
            tool = command[0]
            fix = f"install it: sudo apt install {PROVIDERS.get(tool, tool)}"
            raise BoardError(
                f"{tool} cannot be started", f"{self._board.url} needs it: {error.strerror}", fix
            ) from error
        assert process.stdin and process.stdout
        self._input: IO[bytes] = process.stdin
        self._output: IO[bytes] = process.stdout
        return process

    def _send(self, data: bytes) -> None:
        with suppress(OSError, ValueError):  # what is wrong is told by the end of its output
            self._input.write(data)
            self._input.flush()

    def _send_json(self, content: Event) -> None:
        self._send(json.dumps(content).encode() + b"\n")

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while line := self._output.readline(MAX_LINE):
                self._heard = time.monotonic()
                self._lines.put(line)
        self._lines.put(None)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            self._send(b"\n")

    def _events(self) -> Iterator[Event]:
        """What the board says, but for its beats; ends with its output.

        Raises:
            LinkError: it fell silent.
        """
        while True:
            try:
                line = self._lines.get(timeout=1.0)
            except queue.Empty:
                self._check_heard()
                continue
            if line is None:
                return
            event = _json(line)
            if event and "beat" not in event:
                yield event

    def _check_heard(self) -> None:
        if time.monotonic() - self._heard > SILENCE_S:
            self._process.kill()
            raise LinkError(
                f"{self._board.url} fell silent",
                f"it said nothing for {SILENCE_S:.0f} s",
                "check the link, and run it again; what was left there is removed then",
            )

    def _copy(self, files: list[str], folder: str) -> None:
        with tempfile.TemporaryFile() as said:
            command = self._board.copying(files, folder)
            copy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            try:
                self._wait_for(copy)
            finally:
                copy.kill()
                copy.wait()
            if copy.returncode:
                with suppress(subprocess.TimeoutExpired):  # did the copy fail, or the link under both?
                    self._process.wait(GRACE_S)
                    raise self._lost()
                said.seek(0)
                raise self._board.explain(said.read(MAX_STDERR).decode("utf-8", "replace"), copy.returncode, command[0])

    def _wait_for(self, copy: subprocess.Popen[bytes]) -> None:
        while True:
            with suppress(subprocess.TimeoutExpired):
                copy.wait(0.5)
                return
            if self._process.poll() is not None:
                raise self._lost()
            self._check_heard()

    def _gone(self) -> BoardError:
        """The error behind an end that came before anything was done."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        return self._board.explain(self._said(), self._process.poll())

    def _lost(self) -> LinkError:
        """The error behind an end that came in the middle."""
        return LinkError(
            f"the link to {self._board.url} was lost",
            f"it ended before the result: {self._last_words()}",
            "run it again; what was left there is removed then",
        )

    def _said(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(size - MAX_STDERR, 0))
        return self._stderr.read().decode("utf-8", "replace")

    def _last_words(self) -> str:
        lines = [line for line in self._said().splitlines() if line.strip()]
        return " ".join(lines[-1].split())[:300] if lines else "it said nothing"


PROVIDERS = {"ssh": "openssh-client", "scp": "openssh-client", "qemu-aarch64": "qemu-user"}
"""Program -> Debian package."""


def _json(line: bytes) -> Event:
    """A line of the board, which may say anything: what is no object is nothing."""
    with suppress(ValueError, RecursionError):
        content = json.loads(line)
        if isinstance(content, dict):
            return content
    return {}


def _hello(said: Any) -> Hello:
    try:
        if not re.fullmatch(r"/[A-Za-z0-9/._-]{1,500}", said["run"]):
            raise ValueError(said["run"])
        return Hello(
            python=tuple(map(int, said["python"])),
            machine=str(said["machine"])[:64],
            packages={str(name): str(value) for name, value in said["packages"].items()},
            run=str(said["run"]),
            missing=tuple(map(str, said["missing"])),
            free_bytes=int(said["free_bytes"]),
            removed_runs=int(said["removed_runs"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"its greeting is not understood: {error!r}"
        raise BoardError("the board answers in another language", why, "use the same version of shrink") from error
