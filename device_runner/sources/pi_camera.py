"""A Raspberry Pi camera, by the picamera2 that its system brings (apt install python3-picamera2)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from device_runner.errors import SourceError
from device_runner.sources.readers import Picture, Spec

SIZE = (640, 480)


def picamera2(spec: Spec) -> Iterator[Picture]:
    """Frames of camera N. A call that hangs is ended with its process, from outside.

    Raises:
        SourceError: no picamera2, or no such camera.
    """
    try:
        module = import_module("picamera2")
    except ImportError as error:
        raise SourceError("picamera2 is not installed", str(error), "apt install python3-picamera2") from error
    number = int(spec.url.partition(":")[2] or 0)
    try:
        camera = module.Picamera2(number)
        # libcamera names formats by their order in a little-endian word: BGR888 is R, G, B in memory
        camera.configure(camera.create_video_configuration(main={"size": SIZE, "format": "BGR888"}))
        camera.start()
        while True:
            array = camera.capture_array("main")
            height, width = array.shape[:2]
            yield Picture(kind="rgb", data=array[:, :, :3].tobytes(), size=(width, height))
    except (RuntimeError, IndexError, OSError) as error:
        raise SourceError("the Pi camera cannot be read", str(error), "check it with rpicam-hello") from error
