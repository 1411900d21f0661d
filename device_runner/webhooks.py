"""Tells a web server of an action: one POST of JSON, with a deadline for all of it; no redirect is followed."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit


def post(url: str, token_file: str | None, body: bytes, within_s: float) -> bool:
    """Whether the server took it (2xx) in time. The token is read anew each time, so that it can be exchanged."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=within_s)
    limit = threading.Timer(within_s, _cut, (connection,))  # a server may drip its answer, a byte before every timeout
    limit.daemon = True
    limit.start()
    try:
        headers = {"Content-Type": "application/json", "User-Agent": "device_runner"}
        if token_file is not None:
            headers["Authorization"] = f"Bearer {Path(token_file).read_text(encoding='ascii').strip()}"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, headers)
        return 200 <= connection.getresponse().status < 300
    except (OSError, HTTPException, ValueError):  # ValueError: the token file holds what is no header
        return False
    finally:
        limit.cancel()
        connection.close()


def _cut(connection: HTTPConnection) -> None:
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
