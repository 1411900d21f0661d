"""Keeps a source running: starts its process, gives it deadlines, starts it anew, and hands on the newest frame.

States: connecting, live, stalled, eof. A frame is handed on only from the process that runs now: what a source
delivered before it was lost is forgotten with it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import msgspec

from device_runner import children
from device_runner.clock import SECOND, monotonic_ns
from device_runner.config.parts import Source as SourceConfig
from device_runner.frames import Failure, Frame, read_message
from device_runner.sources.grammar import ENDLESS, parse_url
from device_runner.sources.readers import Spec

State = Literal["connecting", "live", "stalled", "eof"]
CONNECT_S = 10.0  # at least so long for the first frame: cameras and ffmpeg take their time
FIRST_RETRY_S = 1.0
MESSAGES = msgspec.msgpack.Decoder(Frame | Failure)


@dataclass
class Counts:
    """What became of the frames: received = delivered + dropped + the one that waits."""

    received: int = 0
    delivered: int = 0
    dropped: int = 0  # a newer one came, or the source was lost
    starts: int = 0  # of the process
    stalls: int = 0


@dataclass
class _Run:
    """One process of the source."""

    child: subprocess.Popen[bytes]
    stream: BinaryIO
    started_ns: int
    thread: threading.Thread | None = None
    last_ns: int | None = None  # of its last frame
    ended: bool = False
    failure: Failure | None = None
    waiting: list[Frame] = field(default_factory=list)  # at most one


class Supervisor:
    """One source, whatever happens to it."""

    def __init__(
        self,
        config: SourceConfig,
        *,
        now_ns: Callable[[], int] = monotonic_ns,
        rng: random.Random | None = None,
    ) -> None:
        self.config, self.place = config, parse_url(config.url)
        self.state: State = "connecting"
        self.counts = Counts()
        self.problem: Failure | None = None  # why it was last lost; shows no password
        self._now_ns, self._rng = now_ns, rng or random.Random()
        self._changed = threading.Condition()
        self._run: _Run | None = None
        self._pause_s = FIRST_RETRY_S
        self._next_start_ns = now_ns()
        self._next_due_ns = 0
        self.slowdown = 1.0  # frames are looked at so many times less often than `fps`

    def next(self, timeout_s: float) -> Frame | None:
        """The newest frame of a live source, the next one of another; None if there is none yet.

        It also does what is due: starts the process, or ends one that is past its deadline.
        """
        deadline = self._now_ns() + int(timeout_s * SECOND)
        while True:
            self.tick()
            frame = self._take()
            left_s = (deadline - self._now_ns()) / SECOND
            if frame is not None or left_s <= 0 or self.state == "eof":
                return frame
            with self._changed:
                if not self._is_ready():
                    self._changed.wait(min(left_s, self._until_due_s(), 0.2))

    def _until_due_s(self) -> float:
        due = max((self._next_due_ns - self._now_ns()) / SECOND, 0)
        return due or 0.2

    def _is_ready(self) -> bool:
        return self._run is not None and bool(self._run.waiting) and self._now_ns() >= self._next_due_ns

    def _take(self) -> Frame | None:
        with self._changed:
            if not self._is_ready():
                return None
            assert self._run is not None
            frame = self._run.waiting.pop()
            self.counts.delivered += 1
            self._changed.notify_all()
        if not self.place.live:  # a file is as old as the moment it is looked at
            frame = msgspec.structs.replace(frame, captured_ns=self._now_ns())
        if self.config.fps is not None or self.slowdown > 1:
            interval_s = self.slowdown / (self.config.fps or 30.0)
            interval_ns = int(interval_s * SECOND)
            self._next_due_ns = max(self._next_due_ns, self._now_ns() - interval_ns) + interval_ns
        return frame

    def tick(self) -> None:
        """Do what is due."""
        now, run = self._now_ns(), self._run
        if run is None:
            if self.state != "eof" and now >= self._next_start_ns:
                self._start(now)
            return
        with self._changed:
            over = run.ended and not run.waiting
            last_ns = run.last_ns
            if last_ns is not None and self.state == "connecting":
                self.state, self._pause_s = "live", FIRST_RETRY_S
        if over:
            self._lost(run.failure)
        elif not run.waiting and self._is_late(run, last_ns, now):
            self._lost(Failure(kind="SourceError", what="the source stalled", why="no frame in time", fix="check it"))

    def _is_late(self, run: _Run, last_ns: int | None, now: int) -> bool:
        if last_ns is None:
            return now - run.started_ns > max(self.config.stall_s, CONNECT_S) * SECOND
        return now - last_ns > self.config.stall_s * SECOND

    def _start(self, now: int) -> None:
        readable, writable = os.pipe()
        ours, theirs = os.pipe()
        spec = Spec(
            kind=self.place.kind,
            url=self.place.url,
            size=self.config.size,
            transport=self.config.transport,
            output=writable,
            timeout_s=max(self.config.stall_s, 1.0),
        )
        os.write(theirs, msgspec.json.encode(spec))  # a pipe holds 64 KiB at least
        os.close(theirs)
        stdin = 0 if self.place.kind in ("mjpeg", "raw") else None
        argv = [sys.executable, "-m", "device_runner.sources.child", str(ours)]
        try:
            child = children.start(argv, stdin=stdin, keep=(ours, writable))
        except OSError as error:  # no memory or no process left: as good as a lost camera
            os.close(readable)
            why = error.strerror or str(error)
            self._lost(Failure(kind="SourceError", what="no process can be started", why=why, fix="free memory"))
            return
        finally:
            os.close(ours)
            os.close(writable)
        self._run = run = _Run(child, os.fdopen(readable, "rb"), now)
        run.thread = threading.Thread(target=self._read, args=(run,), name="source", daemon=True)
        run.thread.start()
        self.counts.starts += 1
        self.state = "connecting"

    def _read(self, run: _Run) -> None:
        """The thread of one process: its messages, one by one, until it ends."""
        with suppress(OSError, ValueError, msgspec.MsgspecError):
            while (body := read_message(run.stream.read)) is not None:
                message = MESSAGES.decode(body)
                with self._changed:
                    if isinstance(message, Failure):
                        run.failure = message
                    elif not self._put(run, message):
                        break
        with self._changed:
            run.ended = True
            self._changed.notify_all()

    def _put(self, run: _Run, frame: Frame) -> bool:
        """Keep the frame, replacing an older one of a live source or waiting for room; False: nobody wants it."""
        self.counts.received += 1
        run.last_ns = self._now_ns()
        if self.place.live:
            self.counts.dropped += len(run.waiting)
            run.waiting.clear()
        while run.waiting and self._run is run:
            self._changed.wait()
        if self._run is not run:
            self.counts.dropped += 1
            return False
        run.waiting.append(frame)
        run.last_ns = self._now_ns()
        self._changed.notify_all()
        return True

    def _lost(self, failure: Failure | None) -> None:
        self._stop()
        self.problem = failure
        if self.place.kind not in ENDLESS:
            self.state = "eof"
            return
        self.state = "stalled"
        self.counts.stalls += 1
        self._next_start_ns = self._now_ns() + int(self._pause_s * self._rng.uniform(0.5, 1.0) * SECOND)
        self._pause_s = min(self._pause_s * 2, self.config.retry_max_s)

    def _stop(self) -> None:
        with self._changed:
            run, self._run = self._run, None
            if run is None:
                return
            self.counts.dropped += len(run.waiting)
            run.waiting.clear()
            self._changed.notify_all()
        children.end(run.child)
        if run.thread is not None:
            run.thread.join(5)
        run.stream.close()

    def close(self) -> None:
        """End the process."""
        self._stop()
        self.state = "eof"
