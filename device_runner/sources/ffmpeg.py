"""Video files, RTSP and V4L2 by the program ffmpeg, which writes each frame with its own size (PPM).

No shell; it may open nothing but what its kind needs, so that a playlist cannot make it read other files; what it
prints passes without passwords. Its command line holds the address, password and all: other users of the device who
can read /proc see it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO

from device_runner.errors import SourceError
from device_runner.sources.grammar import Kind, redact, secrets
from device_runner.sources.readers import Picture, Spec

MAX_SIDE = 16384
MAX_PIXELS = 25_000_000
MAX_LINES = 20  # of what it prints, per start
SIZE = re.compile(rb"^\[graph \d+ input .*\[verbose\] w:(\d+) h:(\d+) ")  # it tells the size of every new picture
TOLD = re.compile(rb"\[(?:error|fatal|panic)\] ")

BEFORE: dict[Kind, tuple[str, ...]] = {  # options of the input
    "video": ("-protocol_whitelist", "file", "-format_whitelist", "mov,mp4,matroska,webm,avi,mpegts,mpeg,h264,m4v"),
    "rtsp": ("-protocol_whitelist", "rtp,rtsp,tcp,tls,udp", "-fflags", "nobuffer", "-flags", "low_delay"),
    "v4l2": ("-protocol_whitelist", "file", "-f", "v4l2"),
}
AFTER = ("-map", "0:v:0", "-an", "-sn", "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm")


def frames(spec: Spec) -> Iterator[Picture]:
    """Every frame that ffmpeg decodes.

    Raises:
        SourceError: no ffmpeg, or it ends with an error.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise SourceError("ffmpeg is not installed", f"{spec.kind} sources need it", "apt install ffmpeg")
    target = spec.url if spec.kind != "video" else f"file:{spec.url}"
    argv = [
        program,
        "-nostdin",
        "-hide_banner",
        "-loglevel",
        "level+verbose",
        *BEFORE[spec.kind],
        *_rtsp(spec),
        "-i",
        target,
    ]
    child = subprocess.Popen(
        [*argv, *AFTER, "-f", "image2pipe", "-"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stderr is not None
    sizes: set[tuple[bytes, bytes]] = set()
    teller = threading.Thread(target=_retell, args=(child.stderr, secrets(spec.url), sizes), daemon=True)
    teller.start()
    try:
        for picture in ppm_frames(child.stdout):
            if len(sizes) > 1:
                raise SourceError("the picture changed its size", "ffmpeg would distort it", "it is read anew")
            yield picture
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        teller.join(1)
        child.stdout.close()
    if code:
        raise SourceError("ffmpeg cannot read the source", f"it ended with {code}", "see what it printed")


def _rtsp(spec: Spec) -> tuple[str, ...]:
    if spec.kind != "rtsp":
        return ()
    return ("-rtsp_transport", spec.transport, "-timeout", str(int(spec.timeout_s * 1e6)))


def _retell(stream: IO[bytes], hidden: tuple[str, ...], sizes: set[tuple[bytes, bytes]]) -> None:
    """Pass on the errors that ffmpeg prints: a few lines, without secrets or control characters.

    Args:
        stream: its stderr.
        hidden: what must not be shown.
        sizes: gets every (width, height) that the source has had.
    """
    told = 0
    for line in stream:
        if size := SIZE.match(line):
            sizes.add((size[1], size[2]))
        if TOLD.search(line) and told < MAX_LINES:
            told += 1
            text = TOLD.sub(b"", line[:500]).decode("utf-8", "replace").strip()
            for secret in hidden:
                text = text.replace(secret, "***")
            sys.stderr.write(f"ffmpeg: {''.join(c if c.isprintable() else '?' for c in redact(text))}\n")


def ppm_frames(stream: IO[bytes]) -> Iterator[Picture]:
    """Frames of a stream of binary PPM images: P6, width, height, 255, then the pixels.

    Raises:
        SourceError: something else is in the stream.
    """
    while head := stream.readline(32):
        size = stream.readline(32).split()
        depth = stream.readline(32)
        if head != b"P6\n" or depth != b"255\n" or len(size) != 2 or not all(s.isdigit() for s in size):
            raise SourceError("ffmpeg wrote no PPM", repr(head[:16]), "report this as a bug")
        width, height = map(int, size)
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE) or width * height > MAX_PIXELS:
            raise SourceError("a frame is too large", f"it is {width}x{height}", "set the camera to a smaller picture")
        data = stream.read(width * height * 3)
        if len(data) < width * height * 3:
            return
        yield Picture(kind="rgb", data=data, size=(width, height))
