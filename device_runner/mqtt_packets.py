"""The bytes of MQTT 3.1.1, as far as the runner speaks it (OASIS standard, sections 2 and 3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14
REFUSALS = {
    1: "it speaks another MQTT version",
    2: "it refuses the client id",
    3: "it is not available",
    4: "wrong user name or password",
    5: "not authorized",
}
MAX_INCOMING_BYTES = 4096


class Broken(Exception):  # noqa: N818 - says what the stream is
    """The other side does not speak MQTT, or sends too much."""


@dataclass(frozen=True, slots=True)
class Message:
    """A received PUBLISH."""

    topic: str
    payload: bytes
    retained: bool
    qos: int
    packet_id: int


def packet(kind: int, flags: int, body: bytes) -> bytes:
    """Fixed header, remaining length, body."""
    length, head = len(body), bytearray([kind << 4 | flags])
    while True:
        length, digit = length >> 7, length & 0x7F
        head.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


def text(value: str | bytes) -> bytes:
    """A string or binary with its length in front."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def connect(client_id: str, keepalive_s: int, will: tuple[str, bytes], login: tuple[str, bytes] | None) -> bytes:
    """CONNECT with a clean session and a retained last will of QoS 1."""
    flags = 0x02 | 0x04 | 0x08 | 0x20 | (0xC0 if login else 0)
    body = text("MQTT") + bytes([4, flags]) + struct.pack(">H", keepalive_s)
    body += text(client_id) + text(will[0]) + text(will[1])
    if login:
        body += text(login[0]) + text(login[1])
    return packet(CONNECT, 0, body)


def publish(topic: str, payload: bytes, packet_id: int, *, retain: bool = False) -> bytes:
    """PUBLISH; QoS 1 if there is a packet id, else QoS 0."""
    flags = (0x02 if packet_id else 0) | (0x01 if retain else 0)
    return packet(PUBLISH, flags, text(topic) + (struct.pack(">H", packet_id) if packet_id else b"") + payload)


def subscribe(topic: str, packet_id: int) -> bytes:
    """SUBSCRIBE to one topic with QoS 0."""
    return packet(SUBSCRIBE, 2, struct.pack(">H", packet_id) + text(topic) + b"\x00")


class Parser:
    """Feed it bytes, get (kind, flags, body) of whole packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The packets that are complete.

        Raises:
            Broken: a packet beyond MAX_INCOMING_BYTES, or a length that is none.
        """
        self._buffer += data
        found = []
        while (next_ := self._next()) is not None:
            found.append(next_)
        return found

    def _next(self) -> tuple[int, int, bytes] | None:
        length = 0
        for i, digit in enumerate(self._buffer[1:5]):
            length |= (digit & 0x7F) << 7 * i
            if length > MAX_INCOMING_BYTES:
                raise Broken(f"a packet of over {MAX_INCOMING_BYTES} bytes")
            if digit < 0x80:
                start = 2 + i
                if len(self._buffer) < start + length:
                    return None
                first, body = self._buffer[0], bytes(self._buffer[start : start + length])
                del self._buffer[: start + length]
                return first >> 4, first & 0x0F, body
        if len(self._buffer) >= 5:
            raise Broken("a length that is none")
        return None


def message(flags: int, body: bytes) -> Message:
    """Read a PUBLISH.

    Raises:
        Broken: it is cut or not UTF-8.
    """
    try:
        (length,) = struct.unpack_from(">H", body)
        topic, at, qos = body[2 : 2 + length].decode(), 2 + length, flags >> 1 & 3
        (packet_id,) = struct.unpack_from(">H", body, at) if qos else (0,)
    except (struct.error, UnicodeDecodeError) as error:
        raise Broken(f"a message that cannot be read: {error}") from None
    return Message(topic, body[at + 2 * bool(qos) :], bool(flags & 1), qos, packet_id)
