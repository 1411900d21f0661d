"""From a frame to confidences, and what the frame itself looks like."""

from __future__ import annotations

import hashlib
import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from device_runner import postprocess, preprocess
from device_runner.bundle import Bundle
from device_runner.engines import open_engine
from device_runner.engines.base import Engine
from device_runner.errors import ImageError
from device_runner.frames import Frame, Kind
from device_runner.selftest import selftest
from device_runner.worker.messages import Look, Ready, Seen

TILES = 16  # per side of the thumbnail


class Model:
    """A loaded model that passed its self-test."""

    def __init__(self, bundle: Bundle, engine: Engine, *, motion: float = 0.0) -> None:
        self.bundle, self.engine, self.motion = bundle, engine, motion
        self._last: bytes | None = None  # thumbnail of the last frame that the model was asked about
        tested = selftest(bundle, engine)
        self.ready = Ready(sha256=bundle.sha256, engine=f"{engine.name} {engine.version}", golden=tested.n)

    @classmethod
    def load(cls, bundle: Bundle, engine: str | None = None, threads: int = 1, *, motion: float = 0.0) -> Model:
        """Load the very bytes that were verified, and replay the golden images.

        Raises:
            EngineError, SelfTestError: any of it fails.
        """
        loaded = open_engine(bundle.model, bundle.manifest.format, engine=engine, threads=threads)
        return cls(bundle, loaded, motion=motion)

    def see(self, frame: Frame) -> Seen:
        """Answer on one frame.

        Raises:
            ImageError: the frame cannot be decoded or is refused.
            EngineError: the engine fails, or answers with no numbers.
        """
        return self.answer(frame.kind, frame.size, frame.data)

    def answer(self, kind: Kind, size: tuple[int, int], data: bytes | memoryview) -> Seen:
        """The same, of a frame that may lie in shared memory."""
        m = self.bundle.manifest
        start = time.perf_counter_ns()
        pixels = preprocess.pixels(to_image(kind, size, data), m.preprocess)
        look = look_at(pixels)
        if self._is_still(look.thumbnail):
            return Seen(confidences=(), look=look, prepare_ms=_ms_since(start), model_ms=0.0)
        self._last = look.thumbnail
        x = preprocess.encode(preprocess.normalize(pixels, m.preprocess), m.input)
        prepared = time.perf_counter_ns()
        raw = self.engine.run(x)
        model_ms = _ms_since(prepared)
        confidences = postprocess.confidences(raw, m.output)
        return Seen(confidences=confidences, look=look, prepare_ms=(prepared - start) / 1e6, model_ms=model_ms)

    def _is_still(self, thumbnail: bytes) -> bool:
        """Whether every tile is within `motion` grey levels of the last frame that was looked at."""
        if self.motion <= 0 or self._last is None:
            return False
        now, then = (np.frombuffer(t, np.uint8).astype(np.int16) for t in (thumbnail, self._last))
        return bool(np.abs(now - then).max() < self.motion)

    def close(self) -> None:
        """Nothing to stop; a process would be."""


def _ms_since(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e6


def to_image(kind: Kind, size: tuple[int, int], data: bytes | memoryview) -> Image.Image:
    """Decode a file, or wrap raw pixels.

    Raises:
        ImageError: not decodable, too large, or fewer bytes than the size says.
    """
    if kind == "file":
        return preprocess.decode(data)
    width, height = size
    if width < 1 or height < 1 or width * height > preprocess.MAX_PIXELS or len(data) != width * height * 3:
        raise ImageError("a raw frame is refused", f"{len(data)} bytes for {width}x{height}", "check the source")
    return Image.frombuffer("RGB", size, data, "raw", "RGB", 0, 1)  # type: ignore[arg-type]  # any buffer will do


def look_at(pixels: NDArray[np.uint8]) -> Look:
    """Describe the pixels, uint8 (H, W, C)."""
    grey = pixels[:, :, 1 if pixels.shape[2] == 3 else 0]  # green stands for grey
    rows = np.linspace(0, grey.shape[0], TILES + 1).astype(int)[:-1]
    columns = np.linspace(0, grey.shape[1], TILES + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(grey, rows, 0, np.uint32), columns, 1, np.uint32)
    height = np.maximum(np.diff([*rows, grey.shape[0]]), 1)  # an image smaller than TILES repeats its rows
    width = np.maximum(np.diff([*columns, grey.shape[1]]), 1)
    tiles = (sums // np.outer(height, width)).astype(np.uint8)
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()
    return Look(float(grey.mean()), float(grey.std()), digest, tiles.tobytes())
