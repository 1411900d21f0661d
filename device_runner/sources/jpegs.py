"""Cuts a stream of bytes into JPEG images, trusting nothing that the sender says about lengths.

Works alike on MJPEG from stdin and on the multipart stream of a camera: what lies between images, such as part
headers, is skipped. Segments are walked by their markers, so a thumbnail inside an image does not end it.
"""

from __future__ import annotations

from collections.abc import Iterator

START, END, SCAN = 0xD8, 0xD9, 0xDA
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length: TEM and restarts
MAX_IMAGE_BYTES = 16 << 20
MAX_BETWEEN_BYTES = 64 << 10  # of part headers between two images


class Garbage(Exception):  # noqa: N818 - says what the stream is
    """The stream holds no images, or one without end."""


class Splitter:
    """Feed it bytes, get whole images."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipped = 0  # bytes since the last image that were none of an image
        self._at = 0  # where the walk through the image goes on
        self._in_scan = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The images that are complete with these bytes.

        Raises:
            Garbage: more than MAX_BETWEEN_BYTES without an image, or an image above MAX_IMAGE_BYTES.
        """
        self._buffer += data
        while (image := self._next()) is not None:
            yield image

    @property
    def started(self) -> bool:
        """Whether an image has begun and not ended."""
        return self._at > 0

    def _next(self) -> bytes | None:
        if not self._at and not self._find_start():
            return None
        end = self._walk()
        if end is None:
            if len(self._buffer) > MAX_IMAGE_BYTES:
                raise Garbage(f"an image has over {MAX_IMAGE_BYTES} bytes")
            return None
        image = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._at, self._in_scan, self._skipped = 0, False, 0
        return image

    def _find_start(self) -> bool:
        found = self._buffer.find(b"\xff\xd8\xff")
        drop = found if found >= 0 else max(len(self._buffer) - 2, 0)  # the start may be cut in two
        del self._buffer[:drop]
        self._skipped += drop
        if self._skipped > MAX_BETWEEN_BYTES:
            raise Garbage(f"{MAX_BETWEEN_BYTES} bytes without a JPEG image")
        self._at = 2 if found >= 0 else 0
        return found >= 0

    def _walk(self) -> int | None:
        """Go on through the segments; the place behind the image, or None if its end is not there yet."""
        data = self._buffer
        while True:
            if self._in_scan:
                found = data.find(b"\xff", self._at)
                if found < 0 or found + 1 >= len(data):
                    self._at = len(data) if found < 0 else found
                    return None
                self._at = found
                if data[found + 1] == 0 or data[found + 1] in ALONE:
                    self._at += 2
                    continue
                self._in_scan = data[found + 1] == 0xFF  # a fill byte: look again at the next one
                self._at += self._in_scan
                continue
            if self._at + 4 > len(data):
                return self._at + 2 if bytes(data[self._at : self._at + 2]) == bytes((0xFF, END)) else None
            mark, kind = data[self._at], data[self._at + 1]
            if mark != 0xFF:
                return self._at  # broken off: what there is of it is handed on, and will not decode
            if kind == END:
                return self._at + 2
            if kind == 0xFF or kind in ALONE:
                self._at += 1 if kind == 0xFF else 2
                continue
            length = int.from_bytes(data[self._at + 2 : self._at + 4], "big")
            if kind == START or length < 2:
                return self._at
            self._at += 2 + length
            self._in_scan = kind == SCAN
