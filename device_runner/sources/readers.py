"""What the source's process does for each kind of source: a generator of pictures per kind, in one table."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from device_runner.errors import SourceError
from device_runner.sources.grammar import Kind
from device_runner.sources.jpegs import Garbage, Splitter

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
MAX_FILE_BYTES = 128 << 20
CHUNK = 64 << 10


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to read. It holds the password, and so is handed over on a pipe, not on a command line."""

    kind: Kind
    url: str
    size: tuple[int, int] | None
    transport: Literal["tcp", "udp"]
    output: int  # descriptor that frames are written to
    timeout_s: float  # for connecting and for every read


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader yields."""

    kind: Literal["file", "rgb"]
    data: bytes
    size: tuple[int, int] = (0, 0)
    name: str = ""


def images(spec: Spec) -> Iterator[Picture]:
    """Image files of a folder or pattern, each once."""
    paths = find(spec.url)
    if not paths:
        raise SourceError(f"{spec.url} holds no images", f"none ends in {', '.join(SUFFIXES)}", "name another")
    for path in paths:
        yield Picture(kind="file", data=read_file(path), name=str(path))


def find(pattern: str) -> list[Path]:
    """The files that a path or pattern names, sorted."""
    path = Path(pattern)
    if path.is_dir():
        found = (p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        return sorted(p for p in found if p.is_file())
    if path.exists():
        return [path]
    return sorted(p for p in map(Path, glob.glob(pattern)) if p.is_file())  # noqa: PTH207 - may be absolute


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; too large a one yields too many bytes for the decoder, never for the memory."""
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
                return b""  # refused by the decoder, counted, and the run goes on
            return file.read(MAX_FILE_BYTES)
    except OSError:
        return b""


def mjpeg(spec: Spec) -> Iterator[Picture]:
    """JPEG images on stdin."""
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        yield from split(stdin.read)


def split(read: Callable[[int], bytes]) -> Iterator[Picture]:
    """JPEG images of a stream.

    Raises:
        SourceError: the stream holds none, or one without end.
    """
    splitter = Splitter()
    try:
        while data := read(CHUNK):
            for image in splitter.feed(data):
                yield Picture(kind="file", data=image)
    except Garbage as garbage:
        raise SourceError("the stream is no MJPEG", str(garbage), "check the address, or what writes it") from None


def raw(spec: Spec) -> Iterator[Picture]:
    """Raw RGB frames on stdin."""
    assert spec.size is not None, "the configuration was checked"
    with open(0, "rb", closefd=False) as stdin:
        yield from raw_frames(stdin, spec.size)


def raw_frames(stream: BinaryIO, size: tuple[int, int]) -> Iterator[Picture]:
    """Frames of a fixed size; half a frame at the end is dropped."""
    length = size[0] * size[1] * 3
    while len(data := stream.read(length)) == length:
        yield Picture(kind="rgb", data=data, size=size)
