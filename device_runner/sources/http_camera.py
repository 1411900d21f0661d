"""MJPEG over HTTP: the images are cut out of the body; lengths and boundaries that the camera states are not used.

The password is sent only to a camera that asks for it, and not in clear to one that takes a digest (RFC 2617).
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit

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
    """The answer to a GET; asked for a login, the camera is asked once more, with it."""
    parts = urlsplit(spec.url)
    response = _ask(parts, spec.timeout_s, None)
    if response.status != 401 or parts.username is None:
        return response
    login = _login(parts, response.headers.get_all("WWW-Authenticate", []))
    response.close()
    return _ask(parts, spec.timeout_s, login)


def _ask(parts: SplitResult, timeout_s: float, login: str | None) -> HTTPResponse:
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    headers = {"User-Agent": "device_runner", "Accept": "multipart/x-mixed-replace, image/jpeg"}
    if login is not None:
        headers["Authorization"] = login
    connection.request("GET", _target(parts), headers=headers)
    if connection.sock is not None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection.getresponse()


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _login(parts: SplitResult, challenges: Sequence[str]) -> str:
    """What to answer to the camera's challenges: a digest if it takes one.

    Raises:
        SourceError: it takes neither a digest that we know nor a plain password.
    """
    from urllib.request import (  # takes 30 ms to import, and few cameras need it
        AbstractDigestAuthHandler,
        HTTPPasswordMgrWithDefaultRealm,
        Request,
        parse_http_list,
        parse_keqv_list,
    )

    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    offers = {scheme.lower(): rest for scheme, _, rest in (c.strip().partition(" ") for c in challenges)}
    if "digest" in offers:
        asked = parse_keqv_list([item for item in parse_http_list(offers["digest"]) if "=" in item])
        known = HTTPPasswordMgrWithDefaultRealm()
        address = f"http://{parts.hostname}"
        known.add_password(None, address, user, password)
        with suppress(ValueError):  # an algorithm that is not known here
            answer = AbstractDigestAuthHandler(known).get_authorization(Request(address + _target(parts)), asked)
            if answer is not None:
                return f"Digest {answer}"
    if "basic" in offers:
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    raise SourceError("the camera asks for an unknown login", f"it offers {sorted(offers)}", "allow digest")
