"""A frame on its way from a camera to the model, and how messages cross a pipe."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

import msgspec

from device_runner.errors import Problem

MAX_MESSAGE_BYTES = 192 << 20  # a 25 MP frame of raw RGB has 75 MB, an image file at most 128 MiB
LENGTH = struct.Struct(">I")
Kind = Literal["file", "rgb"]


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One picture: an encoded image file, or raw pixels."""

    captured_ns: int  # monotonic, when it was complete
    name: str  # of the file, or empty; without passwords
    kind: Kind
    size: tuple[int, int]  # width, height in pixels; (0, 0) for a file
    data: bytes  # the file, or width * height * 3 bytes


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A Problem on the other side of a pipe."""

    kind: str  # name of its class
    what: str
    why: str
    fix: str

    @classmethod
    def of(cls, problem: Problem) -> Failure:
        return cls(kind=type(problem).__name__, what=problem.what, why=problem.why, fix=problem.fix)


def pack(message: msgspec.Struct) -> bytes:
    """One message with its length in front."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def read_message(read: Callable[[int], bytes]) -> bytes | None:
    """The next message of a stream; None at its end, also in the middle of a message.

    Args:
        read: returns exactly n bytes, or fewer at the end.

    Raises:
        ValueError: the length is beyond all reason.
    """
    head = read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    length = _length(head)
    body = read(length)
    return body if len(body) == length else None


def take(buffer: bytearray) -> bytes | None:
    """Take the first message out of what was read; None: it is not complete.

    Raises:
        ValueError: its length is beyond all reason.
    """
    if len(buffer) < LENGTH.size:
        return None
    end = LENGTH.size + _length(buffer)
    if len(buffer) < end:
        return None
    body = bytes(buffer[LENGTH.size : end])
    del buffer[:end]
    return body


def _length(head: bytes | bytearray) -> int:
    (length,) = LENGTH.unpack_from(head)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    return int(length)
