"""JSON lines on stdout: one write per line, and a reader that sleeps does not stop the camera."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence

import msgspec

from device_runner.loop import RECORD_SCHEMA, Decision
from device_runner.text import printable

MAX_WAITING = 256


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One decision, as who reads stdout gets it; what does not apply is left out."""

    schema: int
    seq: int
    frame: str
    captured_ns: int
    age_ms: float
    label: str | None = None  # the best; it and the next five only if the model answered
    index: int | None = None
    confidence: float | None = None
    review: bool | None = None  # a person should look at it
    prepare_ms: float | None = None
    model_ms: float | None = None
    inert: str | None = None  # why it decides nothing
    error: str | None = None
    verdicts: dict[str, str] = {}


def record(decision: Decision, labels: Sequence[str], review_below: float) -> Line:
    """One decision as a line."""
    line = Line(
        schema=RECORD_SCHEMA,
        seq=decision.seq,
        frame=decision.frame.name,
        captured_ns=decision.frame.captured_ns,
        age_ms=round(decision.age_ms, 3),
        inert=decision.inert,
        error=printable(decision.problem.what) if decision.problem else None,
        verdicts=decision.verdicts,
    )
    seen = decision.seen
    if seen and seen.confidences:
        line.confidence = max(seen.confidences)
        line.index = seen.confidences.index(line.confidence)
        line.label, line.review = labels[line.index], line.confidence < review_below
        line.prepare_ms, line.model_ms = round(seen.prepare_ms, 3), round(seen.model_ms, 3)
    return line


class Lines:
    """Writes lines to a descriptor: straight, or by a thread that drops them while nobody reads."""

    def __init__(self, fd: int, *, patient: bool) -> None:
        self._fd, self.dropped, self.broken = fd, 0, False
        self._queue: queue.Queue[bytes | None] = queue.Queue(MAX_WAITING)
        self._thread = None if patient else threading.Thread(target=self._work, name="lines", daemon=True)
        if self._thread:
            self._thread.start()

    def write(self, line: bytes) -> None:
        """Write, or hand over to be written.

        Raises:
            BrokenPipeError: the reader is gone.
        """
        if self.broken:
            raise BrokenPipeError
        if self._thread is None:
            write_all(self._fd, line)
            return
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def _work(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                write_all(self._fd, line)
        except OSError:
            self.broken = True

    def close(self) -> None:
        """Write what waits, for at most a second."""
        if self._thread is not None:
            try:
                self._queue.put(None, timeout=1)
            except queue.Full:
                return
            self._thread.join(1)


def write_all(fd: int, data: bytes) -> None:
    """One write, unless the pipe takes less at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
