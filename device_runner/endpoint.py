"""Metrics and health over HTTP: GET only, no frames, a handful of threads, a deadline for every client."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from device_runner.clock import SECOND, monotonic_ns
from device_runner.errors import Problem

THREADS = 4
DEADLINE_S = 2.0
MAX_HEAD_BYTES = 8192

Page = Callable[[], tuple[int, str]]
"""Status code and text."""

REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class Endpoint:
    """Serves pages on one address until it is closed."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        """Listen.

        Raises:
            Problem: the address is taken or not ours.
        """
        self._host, self._pages, self._closing = host, pages, False
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family, backlog=16)
        except OSError as error:
            why = error.strerror or str(error)
            raise Problem(f"cannot listen on {host}:{port}", why, "choose another http.port") from error
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._work, name=f"http-{i}", daemon=True) for i in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._closing:
            with suppress(OSError, ValueError):
                connection, _ = self._listener.accept()
                with connection:
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        deadline = monotonic_ns() + int(DEADLINE_S * SECOND)
        head = b""
        while b"\r\n\r\n" not in head and len(head) <= MAX_HEAD_BYTES:
            connection.settimeout(max((deadline - monotonic_ns()) / SECOND, 0.001))
            part = connection.recv(2048)
            if not part:
                return
            head += part
        status, body = self._page(head)
        text = body.encode()
        lines = (
            f"HTTP/1.1 {status} {REASONS[status]}",
            "Content-Type: text/plain; version=0.0.4; charset=utf-8",
            f"Content-Length: {len(text)}",
            "Cache-Control: no-store",
            "Connection: close",
        )
        connection.settimeout(DEADLINE_S)
        connection.sendall("\r\n".join((*lines, "", "")).encode() + text)

    def _page(self, head: bytes) -> tuple[int, str]:
        try:
            request, *lines = head.decode("ascii").split("\r\n\r\n")[0].split("\r\n")
            method, target, _ = request.split(" ")
        except (ValueError, UnicodeDecodeError):
            return 400, "not a request\n"
        hosts = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("host:")]
        if not all(map(self._is_ours, hosts)):
            return 403, "use the address, not a name\n"  # a name may be a web page's, pointed here (DNS rebinding)
        if method != "GET":
            return 405, "GET only\n"
        page = self._pages.get(target.partition("?")[0])
        return page() if page else (404, "try /metrics, /healthz or /readyz\n")

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.count(":") == 1 or "]:" in host else host
        if name.lower() in ("localhost", self._host):
            return True
        with suppress(ValueError):
            ipaddress.ip_address(name.strip("[]"))
            return True
        return False

    def close(self) -> None:
        """Stop listening."""
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(DEADLINE_S + 1)
