"""The process of one source: reads pictures, stamps them, writes them to a pipe. Started by `supervisor.py`.

`python -m device_runner.sources.child FD`, where FD gives a `Spec` as JSON.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

import msgspec

from device_runner import children
from device_runner.clock import monotonic_ns
from device_runner.errors import Problem
from device_runner.frames import Failure, Frame, pack
from device_runner.sources import ffmpeg, http_camera, pi_camera, readers
from device_runner.sources.grammar import Kind
from device_runner.sources.readers import Picture, Spec

MEMORY_BYTES = 3 << 30

READERS: dict[Kind, Callable[[Spec], Iterator[Picture]]] = {
    "images": readers.images,
    "mjpeg": readers.mjpeg,
    "raw": readers.raw,
    "http": http_camera.http,
    "video": ffmpeg.frames,
    "rtsp": ffmpeg.frames,
    "v4l2": ffmpeg.frames,
    "picamera2": pi_camera.picamera2,
}


def main() -> int:
    """Write frames until the source ends or nobody reads them."""
    with os.fdopen(int(sys.argv[1]), "rb") as order:
        spec = msgspec.json.decode(order.read(), type=Spec)
    children.die_with_parent()
    if spec.kind != "picamera2":  # its drivers map the camera's memory
        children.limit_memory(MEMORY_BYTES)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with os.fdopen(spec.output, "wb") as output:
            return pump(spec, output.write, output.flush)
    except BrokenPipeError:
        return 1


def pump(spec: Spec, write: Callable[[bytes], object], flush: Callable[[], None]) -> int:
    """Every picture as a `Frame`, and at last why it ended, if not well."""
    try:
        for picture in READERS[spec.kind](spec):
            frame = Frame(
                captured_ns=monotonic_ns(),
                name=picture.name,
                kind=picture.kind,
                size=picture.size,
                data=picture.data,
            )
            write(pack(frame))
            flush()
    except Problem as problem:
        write(pack(Failure.of(problem)))
        flush()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
