"""A network camera for the tests: MJPEG over HTTP, with every fault that cameras have."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n"


class Camera:
    """Streams `images` in turn, 50 a second, as long as `fault` is None; else it does what `fault` says."""

    def __init__(self, images: Sequence[bytes], address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.images, self.fault = images, None
        self.sent = 0
        self.requests: list[bytes] = []
        self._listener = socket.create_server(address)
        self.port = self._listener.getsockname()[1]
        self._closing = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    fault: str | None
    login = b""  # WWW-Authenticate headers; empty: nobody is asked for a password
    pause_s = 0.02  # between two images

    @property
    def url(self) -> str:
        return f"http://joe:s3cret@127.0.0.1:{self.port}/mjpg"

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._closing:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self.fault == "deaf":
                self._wait()
                return
            self.requests.append(connection.recv(4096))
            if self.login and b"Authorization: " not in self.requests[-1]:
                connection.sendall(b"HTTP/1.0 401 No\r\n" + self.login + b"\r\n\r\n")
                return
            if self.fault in ("404", "redirect"):
                answer = b"404 No" if self.fault == "404" else b"302 F\r\nLocation: file:///etc/passwd"
                connection.sendall(b"HTTP/1.0 " + answer + b"\r\n\r\n")
                return
            connection.sendall(HEAD)
            while not self._closing:
                if self.fault and not self._misbehave(connection):
                    return
                if not self.fault:
                    image = self.images[self.sent % len(self.images)]
                    connection.sendall(
                        b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: 99\r\n\r\n" + image + b"\r\n"
                    )
                    self.sent += 1
                    time.sleep(self.pause_s)

    def _misbehave(self, connection: socket.socket) -> bool:
        """Do the fault; whether the connection goes on."""
        fault = self.fault
        if fault == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "silent" or fault == "half image":
            if fault == "half image":
                connection.sendall(self.images[0][: len(self.images[0]) // 2])
            self._wait()
        elif fault == "drip":
            for byte in self.images[0]:
                if self.fault != "drip":
                    break
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        elif fault == "garbage":
            connection.sendall(b"\x00garbage" * 20_000)
            return True
        return False

    def _wait(self) -> None:
        fault = self.fault
        while self.fault == fault and not self._closing:
            time.sleep(0.02)

    def close(self) -> None:
        self._closing = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)
