"""What a source may be called, as one table, and how its name is shown without its password.

DIR, FILE, a pattern such as shots/*.jpg     images, each once, sorted by name
film.mp4 (or .avi .mkv .mov .webm .ts)       a video, every frame; needs ffmpeg
-  or  mjpeg:-                               JPEG images one after the other on stdin
raw:-                                        raw RGB frames of `size` on stdin
http://  https://                            a camera's MJPEG stream
rtsp://  rtsps://                            by ffmpeg
/dev/video0, /dev/v4l/by-id/NAME, 0          a V4L2 camera, by ffmpeg
picamera2:0                                  a Raspberry Pi camera, by its picamera2
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from device_runner.errors import ConfigError

Kind = Literal["images", "mjpeg", "raw", "http", "video", "rtsp", "v4l2", "picamera2"]

LIVE = ("http", "rtsp", "v4l2", "picamera2", "mjpeg", "raw")
"""Kinds of which only the newest frame counts; of the others every frame is looked at."""

ENDLESS = ("http", "rtsp", "v4l2", "picamera2")
"""Kinds that are started anew when they end."""

SCHEMES: dict[str, Kind] = {"http": "http", "https": "http", "rtsp": "rtsp", "rtsps": "rtsp", "picamera2": "picamera2"}
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".h264")


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """A parsed source. Its repr shows no password."""

    kind: Kind
    url: str  # with the password, if there is one

    @property
    def shown(self) -> str:
        """For logs, records and metrics."""
        return redact(self.url)

    @property
    def live(self) -> bool:
        """Whether only the newest frame counts."""
        return self.kind in LIVE

    def __repr__(self) -> str:
        return f"Place({self.kind}, {self.shown})"


def parse_url(url: str) -> Place:
    """Read a source's address.

    Raises:
        ConfigError: no such kind of source.
    """
    if not url or any(ord(c) < 32 or ord(c) == 127 for c in url):
        raise ConfigError("source.url is empty or holds control characters", "it names no source", "correct it")
    if url in ("-", "mjpeg:-"):
        return Place("mjpeg", url)
    if url == "raw:-":
        return Place("raw", url)
    if re.fullmatch(r"\d{1,2}", url):
        return Place("v4l2", f"/dev/video{url}")
    if url.startswith(("/dev/video", "/dev/v4l/")):
        return Place("v4l2", url)
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):", url)
    if scheme:
        return Place(_scheme_kind(scheme[1].lower(), url), url)
    if PurePosixPath(url).name.startswith("-"):
        raise ConfigError(f"source.url {url} starts with a dash", "it could be taken for an option", f"use ./{url}")
    return Place("video" if PurePosixPath(url).suffix.lower() in VIDEOS else "images", url)


def _scheme_kind(scheme: str, url: str) -> Kind:
    kind = SCHEMES.get(scheme)
    if kind is None:
        known = ", ".join(SCHEMES)
        raise ConfigError(f"source.url has the unknown scheme {scheme!r}", f"known: {known}", "use one of them")
    if kind in ("http", "rtsp"):
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - raises for a port that is none
        except ValueError as error:
            # `from None`: the error's own text may hold the password
            raise ConfigError("source.url is no address", type(error).__name__, "use SCHEME://HOST[:PORT]/") from None
        if not parts.hostname:
            raise ConfigError("source.url names no host", f"after {scheme}:// there is none", "add the camera's host")
    elif not re.fullmatch(r"picamera2:\d{0,2}", url):
        raise ConfigError("source.url names no Pi camera", "it is picamera2: and a number", "use picamera2:0")
    return kind


def redact(text: str) -> str:
    """The text with user name and password of every URL in it replaced, and secrets of its query too."""
    text = re.sub(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#]*@", r"\1***@", text)
    return re.sub(
        r"(?i)([?&;](?:[a-z0-9_.-]*(?:pass|pwd|token|key|secret|auth)[a-z0-9_.-]*)=)[^\s&;#]*", r"\1***", text
    )


def secrets(url: str) -> tuple[str, ...]:
    """User name and password of a URL in every spelling, to be removed from what other programs print."""
    if "://" not in url:
        return ()
    parts = urlsplit(url)
    found = [parts.password or "", parts.netloc.rpartition("@")[0]]
    spelled = {s for f in found if f for s in (f, unquote(f), quote(f, safe=""))}
    return tuple(sorted(spelled, key=len, reverse=True))
