"""A small MQTT client: one thread, one connection, nothing queued.

A general client queues what it cannot send, which is right for most and wrong here: an unlock must never be sent late,
and alerts wait on disk, not in memory. So `publish` either sends now, within its time, or says that it did not; a
packet that was sent in part breaks the connection, so that the broker never sees it whole.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from device_runner import mqtt_packets as packets
from device_runner.clock import SECOND, monotonic_ns
from device_runner.config.parts import Mqtt
from device_runner.mqtt_packets import Broken, Message, Parser

CONNECT_S = 10.0
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 30.0
LEAVE_S = 1.0  # for the broker to end the connection after our goodbye


class Client:
    """A connection that is kept up until `close`."""

    def __init__(
        self,
        config: Mqtt,
        client_id: str,
        will: tuple[str, bytes],
        *,
        subscribe: tuple[str, ...] = (),
        on_message: Callable[[Message], None] = lambda message: None,
        on_online: Callable[[], None] = lambda: None,
        retry_first_s: float = RETRY_FIRST_S,
    ) -> None:
        self._config, self._id, self._will = config, client_id, will
        self._subscribe, self._on_message, self._on_online = subscribe, on_message, on_online
        self._retry_first_s = retry_first_s
        self.state, self.reason = "offline", "not connected yet"
        self.connects = 0
        self._socket: socket.socket | None = None  # while online
        self._pending: socket.socket | None = None  # from the first moment, so that it is closed whatever happens
        self._parser = Parser()
        self._lock = threading.Lock()  # of the socket: TLS cannot read and write at once
        self._acks: dict[int, threading.Event] = {}
        self._pong = threading.Event()
        self._last_id = 0
        self._leaving = False  # only last words are sent any more
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mqtt", daemon=True)

    def start(self) -> None:
        """Connect, and keep connected, on a thread."""
        self._thread.start()

    def publish(self, topic: str, payload: bytes, qos: int, within_s: float, *, retain: bool = False) -> bool:
        """Send now. True if it was sent (QoS 0) or acknowledged (QoS 1) in time; never sent after this returns."""
        return self._publish(topic, payload, qos, within_s, retain=retain)

    def _publish(
        self, topic: str, payload: bytes, qos: int, within_s: float, *, retain: bool, last: bool = False
    ) -> bool:
        deadline = monotonic_ns() + int(within_s * SECOND)
        acknowledged = threading.Event()
        number = 0
        if not self._lock.acquire(timeout=max(within_s, 0)):
            return False
        try:
            if self._socket is None or (self._leaving and not last) or monotonic_ns() >= deadline:
                return False
            if qos:
                number = self._last_id = self._last_id % 65535 + 1
                self._acks[number] = acknowledged
            try:
                self._send(self._socket, packets.publish(topic, payload, number, retain=retain), deadline)
            except OSError:
                self._drop(self._socket)
                return False
        finally:
            self._lock.release()
        try:
            return not qos or acknowledged.wait(max((deadline - monotonic_ns()) / SECOND, 0))
        finally:
            self._acks.pop(number, None)

    def answers(self, within_s: float) -> bool:
        """Whether the broker answers a ping now. One that hangs takes packets, and passes them on when it wakes up."""
        self._pong.clear()
        with self._lock:
            if self._socket is None:
                return False
            try:
                self._ping(self._socket)
            except OSError:
                self._drop(self._socket)
                return False
        return self._pong.wait(within_s)

    def _ping(self, sock: socket.socket) -> None:
        self._send(sock, packets.packet(packets.PINGREQ, 0, b""), monotonic_ns() + SECOND)

    @staticmethod
    def _send(sock: socket.socket, data: bytes, deadline_ns: int) -> None:
        sock.settimeout(max((deadline_ns - monotonic_ns()) / SECOND, 0.001))
        sock.sendall(data)

    @staticmethod
    def _drop(sock: socket.socket) -> None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it

    def _work(self) -> None:
        pause_s = self._retry_first_s
        while not self._closing.is_set():
            try:
                sock = self._connect()
                pause_s = self._retry_first_s
                self._serve(sock)
                self._drain(sock)
                self.state, self.reason = "offline", "the connection ended"
            except (OSError, Broken, ssl.SSLError) as error:
                self.state, self.reason = "offline", str(error) if isinstance(error, Broken) else type(error).__name__
            finally:
                self._disconnect()
            self._closing.wait(pause_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    def _connect(self) -> socket.socket:
        c = self._config
        self._pending = sock = socket.create_connection((c.host, c.port), timeout=CONNECT_S)
        if c.tls:
            context = ssl.create_default_context(cafile=c.ca_file)
            self._pending = sock = context.wrap_socket(sock, server_hostname=c.host)
        sock.settimeout(CONNECT_S)
        sock.sendall(packets.connect(self._id, c.keepalive_s, self._will, _login(c)))
        self._parser = Parser()
        kind, _, body = self._first_packet(sock)
        if kind != packets.CONNACK or len(body) != 2:
            raise Broken("it does not speak MQTT")
        if body[1]:
            raise Broken(f"the broker refused: {packets.REFUSALS.get(body[1], body[1])}")
        for number, topic in enumerate(self._subscribe, 1):
            sock.sendall(packets.subscribe(topic, number))
        self._last_id = len(self._subscribe)
        with self._lock:
            if self._closing.is_set():  # nobody would say goodbye
                raise Broken("it is closing")
            self._socket = sock
        self.state, self.reason, self.connects = "online", "", self.connects + 1
        return sock

    def _first_packet(self, sock: socket.socket) -> tuple[int, int, bytes]:
        deadline = monotonic_ns() + int(CONNECT_S * SECOND)
        while True:
            sock.settimeout(max((deadline - monotonic_ns()) / SECOND, 0.001))
            data = sock.recv(4096)
            if not data:
                raise Broken("the broker closed the connection")
            for first in self._parser.feed(data):
                return first

    def _serve(self, sock: socket.socket) -> None:
        """Read and ping until the connection ends."""
        self._on_online()
        keepalive_ns = self._config.keepalive_s * SECOND
        pinged = heard = monotonic_ns()
        while not self._closing.is_set():
            now = monotonic_ns()
            if now - heard > 1.5 * keepalive_ns:
                raise Broken("the broker is silent")
            if now - pinged >= keepalive_ns / 2:
                pinged = now
                with self._lock:
                    self._ping(sock)
            data = self._receive(sock)
            if data is None:
                continue
            if not data or self._closing.is_set():
                return
            heard = monotonic_ns()
            for kind, flags, body in self._parser.feed(data):
                self._handle(kind, flags, body)

    def _receive(self, sock: socket.socket) -> bytes | None:
        """What has come, b'' at the end, None if nothing came for half a second."""
        waiting = isinstance(sock, ssl.SSLSocket) and sock.pending()
        if not waiting and not select.select([sock], [], [], 0.5)[0]:
            return None
        with self._lock:
            sock.settimeout(0.5)
            with suppress(TimeoutError, ssl.SSLWantReadError):
                return sock.recv(4096)
        return None

    def _handle(self, kind: int, flags: int, body: bytes) -> None:
        if kind == packets.PUBACK and len(body) >= 2:
            event = self._acks.get(int.from_bytes(body[:2], "big"))
            if event is not None:
                event.set()
        elif kind == packets.PINGRESP:
            self._pong.set()
        elif kind == packets.PUBLISH:
            self._on_message(packets.message(flags, body))
        elif kind == packets.SUBACK and len(body) >= 3 and body[2] == 0x80:
            raise Broken("the broker refused a subscription")

    def _drain(self, sock: socket.socket) -> None:
        """Read until the broker ends it, too: closed with unread bytes it would be reset, and our goodbye be lost."""
        deadline = monotonic_ns() + int(LEAVE_S * SECOND)
        with suppress(OSError):
            while (left_s := (deadline - monotonic_ns()) / SECOND) > 0:
                sock.settimeout(left_s)
                if not sock.recv(4096):
                    return

    def _disconnect(self) -> None:
        with self._lock:
            self._socket = None
        if self._pending is not None:
            self._pending.close()
            self._pending = None

    def close(self, goodbye: Mapping[str, bytes] | None = None) -> None:
        """Publish the last retained messages, leave in good order, end the thread."""
        with self._lock:  # what another thread is about to say, such as that we are online, may not come after it
            self._leaving = True
        for topic, payload in (goodbye or {}).items():
            self._publish(topic, payload, 1, 1.0, retain=True, last=True)
        with self._lock:  # the thread may not end the connection before the goodbye is sent
            self._closing.set()
            if self._socket is not None:
                with suppress(OSError):
                    self._send(self._socket, packets.packet(packets.DISCONNECT, 0, b""), monotonic_ns() + SECOND)
                    self._socket.shutdown(socket.SHUT_WR)
        if self._thread.is_alive():
            self._thread.join(CONNECT_S + 2)


def _login(config: Mqtt) -> tuple[str, bytes] | None:
    if config.username is None:
        return None
    password = Path(config.password_file).read_bytes().rstrip(b"\r\n") if config.password_file else b""
    return config.username, password
