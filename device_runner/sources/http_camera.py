"""MJPEG over HTTP: the images are cut out of the body; lengths and boundaries that the camera states are not used."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import unquote, urlsplit

from device_runner.errors import SourceError
from device_runner.sources.readers import Picture, Spec, split


def http(spec: Spec) -> Iterator[Picture]:
    """The images of a camera's stream. Redirects are not followed: they could lead anywhere.

    Raises:
        SourceError: no connection, another answer than 200, or no images.
    """
    try:
        response = _get(spec)
        if response.status != 200:
            why = f"it answered {response.status}"
            raise SourceError("the camera does not stream", why, "check address, user and password; no redirects")
        yield from split(response.read1)
    except (OSError, HTTPException, ssl.SSLError) as error:
        # from None: the text of the cause may hold the address with its password
        raise SourceError(
            "the camera cannot be read", type(error).__name__, "check that it is on and reachable"
        ) from None


def _get(spec: Spec) -> HTTPResponse:
    parts = urlsplit(spec.url)
    host = parts.hostname or ""
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(host, parts.port, timeout=spec.timeout_s)
    headers = {"User-Agent": "device_runner", "Accept": "multipart/x-mixed-replace, image/jpeg"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers=headers)
    if connection.sock is not None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection.getresponse()
