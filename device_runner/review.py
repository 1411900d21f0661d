"""Keeps frames that the model is unsure of, for a person to label: only if asked for, a few, within a quota.

Each is an image beside a .json that says what the model thought. Names are numbers and a slug, nothing else. The
oldest give way before a new one is written, so that the quota holds at every moment.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import msgspec

from device_runner.clock import SECOND, monotonic_ns, wall_s
from device_runner.config.parts import Review as ReviewConfig
from device_runner.frames import Frame
from device_runner.text import slug

COLUMNS = ("path", "label", "guess", "confidence")
"""Of the list for a person: `label` is left empty, so that no guess of a model becomes a truth by itself."""

SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png"}


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a frame beside its picture."""

    label: str  # the model's best
    confidence: float
    model: str  # sha256 of the bundle's manifest
    wall: float  # seconds since 1970, as the device believed
    frame: str  # name of the frame's file, or empty


class Review:
    """A directory of doubtful frames. Written by a thread, so that a slow disk stops nothing."""

    def __init__(self, folder: Path, config: ReviewConfig) -> None:
        self._folder, self._config = folder, config
        self._next_ns = 0
        self.kept = self.failed = 0
        self._queue: queue.Queue[tuple[Frame, str, float, str] | None] = queue.Queue(1)
        self._thread = threading.Thread(target=self._work, name="review", daemon=True)
        self._thread.start()

    def offer(self, frame: Frame, label: str, confidence: float, model: str) -> None:
        """Keep the frame if the model is unsure and the last one is long enough ago."""
        now = monotonic_ns()
        if confidence >= self._config.below or now < self._next_ns:
            return
        with suppress(queue.Full):
            self._queue.put_nowait((frame, label, confidence, model))
            self._next_ns = now + int(self._config.min_gap_s * SECOND)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self.keep(*item)
                self.kept += 1
            except (OSError, ValueError):
                self.failed += 1

    def keep(self, frame: Frame, label: str, confidence: float, model: str) -> None:
        """Write one frame.

        Raises:
            OSError: the disk is full or read-only; nothing half written stays.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        data, suffix = as_file(frame)
        text = msgspec.json.encode(
            Doubt(label=label, confidence=confidence, model=model, wall=wall_s(), frame=frame.name)
        )
        stored = sorted(p for p in self._folder.iterdir() if p.suffix != ".json")
        self._make_room(stored, len(data) + len(text))
        number = int(stored[-1].name[:8]) + 1 if stored else 1
        path = self._folder / f"{number:08d}-{slug(label)}{suffix}"
        made: list[Path] = []
        try:
            for target, content in ((path.with_suffix(".json"), text), (path, data)):
                with open(target, "xb", opener=lambda p, f: os.open(p, f | os.O_NOFOLLOW, 0o640)) as file:
                    made.append(target)
                    file.write(content)
        except OSError:
            for target in made:  # not what was there before
                target.unlink(missing_ok=True)
            raise

    def _make_room(self, stored: list[Path], need: int) -> None:
        if need > self._config.max_bytes:
            raise ValueError("the frame alone is above the quota")
        sizes = {p: p.stat().st_size for p in self._folder.iterdir()}
        for path in stored:
            if sum(sizes.values()) + need <= self._config.max_bytes:
                return
            for file in (path, path.with_suffix(".json")):
                file.unlink(missing_ok=True)
                sizes.pop(file, None)

    def close(self) -> None:
        """Write what waits, stop."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=1)
        self._thread.join(2)


def kept(folder: Path) -> Iterator[tuple[Path, Doubt | None]]:
    """The pictures of a folder with what is known of each, the oldest first; None: its .json is damaged.

    Raises:
        OSError: there is no such folder.
    """
    for path in sorted(p for p in folder.iterdir() if p.suffix in (*SUFFIXES.values(), ".bmp")):
        try:
            yield path, msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Doubt)
        except (OSError, msgspec.MsgspecError):
            yield path, None


def as_file(frame: Frame) -> tuple[bytes, str]:
    """The frame as an image file and its suffix; raw pixels become a PNG."""
    if frame.kind == "file":
        return frame.data, next((s for magic, s in SUFFIXES.items() if frame.data.startswith(magic)), ".bmp")
    from PIL import Image  # most sources give files: the runner's own process then needs no Pillow

    out = BytesIO()
    Image.frombytes("RGB", frame.size, frame.data).save(out, "PNG", compress_level=1)
    return out.getvalue(), ".png"
