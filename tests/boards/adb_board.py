"""A device that Debian's real `adb` client talks with over TCP: the daemon's side of adb's protocol, and a shell.

It tests the transport and is no Android: commands run in this system's shell. A command that starts an arm64 program is
run as the device's kernel would run it, by QEMU. Services: shell (with and without its own protocol), exec, sync.

python adb_board.py FOLDER [--unauthorized]: prints its port as JSON, and notes every service that is opened in a file.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

LOG = "services.log"
FEATURES = "shell_v2,cmd,stat_v2,ls_v2"
VERSION, MOST = 0x01000001, 256 * 1024
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
CHUNK = 60 * 1024
ARM64 = (b"\x7fELF\x02\x01", b"\xb7\0")  # the start of a program, and its machine at byte 18


@dataclass(frozen=True)
class AdbBoard:
    """The device, as a test sees it."""

    folder: Path
    port: int
    process: subprocess.Popen[str]

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its own directory instead of Android's, which is not here."""
        return f"adb:{self.serial}?dir={self.folder}/board"

    @property
    def services(self) -> list[str]:
        """What was opened there so far."""
        log = self.folder / LOG
        return log.read_text().splitlines() if log.exists() else []

    @property
    def runs(self) -> list[Path]:
        """Directories of runs there."""
        return list((self.folder / "board/runs").glob("*"))

    def cut(self) -> None:
        """The cable is pulled."""
        self.process.kill()

    def freeze(self) -> None:
        """It hangs."""
        self.process.send_signal(signal.SIGSTOP)


@contextmanager
def adb_server(folder: Path) -> Iterator[dict[str, str]]:
    """Variables of an adb server of our own, which no other adb of this machine notices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    mine = {"ANDROID_ADB_SERVER_PORT": str(port), "HOME": str(folder), "TMPDIR": str(folder), "ADB_MDNS": "0"}
    try:
        yield mine
    finally:
        subprocess.run(["adb", "kill-server"], env={**os.environ, **mine}, capture_output=True, check=False)


def make_arm(folder: Path, qemu: list[str], cpuinfo: str) -> None:
    """Let the device run arm64 programs, and say that it does. It has no other file than /proc/cpuinfo of its own."""
    own = folder / "kernel"
    (own / "proc").mkdir(parents=True)
    (own / "proc/cpuinfo").write_text(cpuinfo)
    (folder / "kernel.json").write_text(json.dumps([*qemu, "-L", str(own)]))
    (folder / "bin").mkdir()
    (folder / "bin/uname").write_text("#!/bin/sh\necho aarch64\n")
    (folder / "bin/uname").chmod(0o755)


@contextmanager
def connected(folder: Path, environment: dict[str, str], *options: str) -> Iterator[AdbBoard]:
    """The device runs while the block does, and adb knows it."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        board = AdbBoard(folder, json.loads(process.stdout.readline())["port"], process)
        adb = ["adb", "connect", board.serial]
        try:
            subprocess.run(adb, env={**os.environ, **environment}, capture_output=True, check=True, timeout=30)
            yield board
        finally:
            process.kill()


@dataclass
class _Stream:
    """One service, as the daemon sees it."""

    link: _Link
    mine: int
    theirs: int
    incoming: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)  # b"": closed by the client
    taken: asyncio.Event = field(default_factory=asyncio.Event)  # the client has taken what was written last
    held: bytes = b""

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK):
            self.taken.clear()
            await self.link.send(b"WRTE", self.mine, self.theirs, data[start : start + CHUNK])
            await self.taken.wait()

    async def exactly(self, count: int) -> bytes:
        while len(self.held) < count:
            data = await self.incoming.get()
            if not data:
                raise EOFError
            self.held += data
        data, self.held = self.held[:count], self.held[count:]
        return data


class _Link:
    """One client."""

    def __init__(self, folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.folder, self.reader, self.writer = folder, reader, writer
        self.streams: dict[int, _Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        head = struct.pack("<4s5I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        self.writer.write(head + data)
        await self.writer.drain()

    async def serve(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self.reader.readexactly(24)
                command, first, second, length = struct.unpack("<4s3I", head[:16])
                await self.take(command, first, second, await self.reader.readexactly(length))
        for stream in self.streams.values():
            stream.incoming.put_nowait(b"")
            stream.taken.set()

    async def take(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            await self._greet()
        elif command == b"AUTH":  # a signature, then a public key: neither is known here
            await self.send(b"AUTH", 1, 0, bytes(20))
        elif command == b"OPEN":
            await self._open(first, data.rstrip(b"\0").decode())
        elif stream := self.streams.get(second):
            if command == b"OKAY":
                stream.taken.set()
            elif command == b"WRTE":
                stream.incoming.put_nowait(data)
                await self.send(b"OKAY", stream.mine, stream.theirs)
            elif command == b"CLSE":
                stream.incoming.put_nowait(b"")
                stream.taken.set()

    async def _greet(self) -> None:
        if "--unauthorized" in sys.argv:
            await self.send(b"AUTH", 1, 0, bytes(20))
            return
        name = f"device::ro.product.name=loopback;ro.product.model=loopback;features={FEATURES}"
        await self.send(b"CNXN", VERSION, MOST, name.encode())

    async def _open(self, theirs: int, service: str) -> None:
        with (self.folder / LOG).open("a") as log:
            log.write(service.replace("\n", " ")[:400] + "\n")
        stream = _Stream(self, len(self.streams) + 1, theirs)
        self.streams[stream.mine] = stream
        await self.send(b"OKAY", stream.mine, theirs)
        task = asyncio.create_task(self._run(stream, service))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, stream: _Stream, service: str) -> None:
        kind, _, words = service.partition(":")
        with suppress(EOFError, ConnectionError):
            if kind == "sync":
                await _Sync(stream).serve()
            elif kind.split(",")[0] in ("shell", "exec"):
                await _shell(stream, words, framed=",v2" in kind)
        with suppress(ConnectionError):
            await self.send(b"CLSE", stream.mine, stream.theirs)


async def _shell(stream: _Stream, command: str, *, framed: bool) -> None:
    """Run a command; framed: in packets that tell stdout from stderr and carry the exit code."""
    child = await asyncio.create_subprocess_exec(
        *_program(command, stream.link.folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if framed else asyncio.subprocess.STDOUT,
        env={"HOME": "/", "PATH": f"{stream.link.folder}/bin:/usr/bin:/bin"},
    )
    assert child.stdin and child.stdout
    feeding = asyncio.create_task(_feed(stream, child.stdin, framed=framed))
    pumps = [_pump(stream, child.stdout, STDOUT if framed else None)]
    if child.stderr:
        pumps.append(_pump(stream, child.stderr, STDERR))
    await asyncio.gather(*pumps)
    code = await child.wait()
    feeding.cancel()
    if framed:
        await stream.write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))


def _program(command: str, folder: Path) -> list[str]:
    """The words that do what the device's shell and kernel would: an arm64 program is run by QEMU."""
    with suppress(ValueError, OSError):
        words = shlex.split(command)
        with Path(words[0]).open("rb") as file:
            head = file.read(20)
        if (head[:6], head[18:]) == ARM64:
            return [*json.loads((folder / "kernel.json").read_text()), *words]
    return ["/bin/sh", "-c", command]


async def _feed(stream: _Stream, stdin: asyncio.StreamWriter, *, framed: bool) -> None:
    """What the client sends becomes the command's input; its end too, also when the client is gone."""
    with suppress(EOFError, ConnectionError):
        while True:
            if framed:
                kind, length = struct.unpack("<BI", await stream.exactly(5))
                data = await stream.exactly(length)
                if kind == CLOSE_STDIN:
                    break
            else:
                data = await stream.exactly(1)
                data, stream.held = data + stream.held, b""
            stdin.write(data)
            await stdin.drain()
    stdin.close()


async def _pump(stream: _Stream, output: asyncio.StreamReader, kind: int | None) -> None:
    lock = stream.link.__dict__.setdefault(f"lock{stream.mine}", asyncio.Lock())  # one writer at a time
    while data := await output.read(CHUNK - 5):
        async with lock:
            await stream.write(data if kind is None else struct.pack("<BI", kind, len(data)) + data)


class _Sync:
    """Files: requests of four letters and a length."""

    def __init__(self, stream: _Stream) -> None:
        self.stream = stream

    async def serve(self) -> None:
        answers = {b"STAT": self._stat, b"STA2": self._stat2, b"LST2": self._stat2, b"LIST": self._list,
                   b"SEND": self._send, b"RECV": self._receive}  # fmt: skip
        while True:
            request, length = struct.unpack("<4sI", await self.stream.exactly(8))
            path = (await self.stream.exactly(length)).decode()
            if request == b"QUIT":
                return
            try:
                await answers[request](request, path)
            except OSError as error:
                why = (error.strerror or "failed").encode()
                await self.stream.write(struct.pack("<4sI", b"FAIL", len(why)) + why)

    async def _stat(self, _: bytes, path: str) -> None:
        found = _look(path)
        fields = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
        await self.stream.write(struct.pack("<4s3I", b"STAT", *fields))

    async def _stat2(self, request: bytes, path: str) -> None:
        found = _look(path, follow=request == b"STA2")
        if found is None:
            await self.stream.write(struct.pack("<4sI2Q4IQ3q", request, 2, *[0] * 10))
            return
        fields = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size,
                  int(found.st_atime), int(found.st_mtime), int(found.st_ctime))  # fmt: skip
        await self.stream.write(struct.pack("<4sI2Q4IQ3q", request, 0, *fields))

    async def _list(self, _: bytes, path: str) -> None:
        for file in sorted(Path(path).iterdir()) if Path(path).is_dir() else ():
            found, name = file.lstat(), file.name.encode()
            head = struct.pack(
                "<4s4I", b"DENT", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime), len(name)
            )
            await self.stream.write(head + name)
        await self.stream.write(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))

    async def _send(self, _: bytes, path: str) -> None:
        name, _, mode = path.rpartition(",")
        failed: OSError | None = None
        try:
            file = Path(name).open("wb")  # noqa: SIM115 what arrives must be read though it cannot be kept
        except OSError as error:
            failed, file = error, Path(os.devnull).open("wb")  # noqa: SIM115
        with file:
            while True:
                kind, length = struct.unpack("<4sI", await self.stream.exactly(8))
                if kind == b"DONE":
                    break
                file.write(await self.stream.exactly(length))
        if failed:
            raise failed
        Path(name).chmod(stat.S_IMODE(int(mode)))
        await self.stream.write(struct.pack("<4sI", b"OKAY", 0))

    async def _receive(self, _: bytes, path: str) -> None:
        data = Path(path).read_bytes()
        for start in range(0, len(data), CHUNK):
            part = data[start : start + CHUNK]
            await self.stream.write(struct.pack("<4sI", b"DATA", len(part)) + part)
        await self.stream.write(struct.pack("<4sI", b"DONE", 0))


def _look(path: str, *, follow: bool = True) -> os.stat_result | None:
    with suppress(OSError):
        return Path(path).stat(follow_symlinks=follow)
    return None


async def _listen() -> None:
    folder = Path(sys.argv[1])
    links: list[_Link] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        links.append(_Link(folder, reader, writer))
        await links[-1].serve()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_listen())
