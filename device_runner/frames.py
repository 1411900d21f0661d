"""A frame on its way from a camera to the model, and how it crosses a pipe."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

import msgspec

from device_runner.errors import Problem

MAX_MESSAGE_BYTES = 192 << 20  # a 25 MP frame of raw RGB has 75 MB, an image file at most 128 MiB
LENGTH = struct.Struct(">I")


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One picture: an encoded image file, or raw pixels."""

    captured_ns: int  # monotonic, when it was complete
    name: str  # of the file, or empty; without passwords
    kind: Literal["file", "rgb"]
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
    (length,) = LENGTH.unpack(head)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    body = read(length)
    return body if len(body) == length else None
