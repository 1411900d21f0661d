"""A model in a process of its own: whatever happens to it, the runner finds out in time and goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from device_runner import children
from device_runner.clock import SECOND, monotonic_ns
from device_runner.errors import BundleError, EngineError, GaveUp, ImageError, Problem, SelfTestError
from device_runner.frames import Failure, Frame, pack
from device_runner.pipes import Inbox, TooSlow
from device_runner.worker.messages import Order, Ready, Request, Seen
from device_runner.worker.slot import Slot

START_S = 120.0  # a slow board may need long to load and to replay the golden images
BREAKER_WINDOW_S = 60.0
KINDS = {kind.__name__: kind for kind in (BundleError, EngineError, ImageError, SelfTestError)}
REPLIES: msgspec.msgpack.Decoder[Ready | Seen | Failure] = msgspec.msgpack.Decoder(Ready | Seen | Failure)
NOT_READY = Ready(sha256="", engine="", golden=0)


class Worker(Protocol):
    """A model that answers; in this process or in another."""

    ready: Ready

    def see(self, frame: Frame) -> Seen:
        """Answer on one frame.

        Raises:
            ImageError: the frame is refused; the next one may be fine.
            EngineError: no answer.
            GaveUp: it failed too often.
        """
        ...

    def close(self) -> None:
        """Stop it."""
        ...


@dataclass
class Breaker:
    """Opens after so many restarts in a minute: a process that always dies must not die forever."""

    most: int
    now_ns: Callable[[], int] = monotonic_ns
    times: deque[int] = field(default_factory=deque)

    def count(self) -> None:
        """One more restart.

        Raises:
            GaveUp: it is one too many.
        """
        now = self.now_ns()
        self.times.append(now)
        while now - self.times[0] > BREAKER_WINDOW_S * SECOND:
            self.times.popleft()
        if len(self.times) >= self.most:
            raise GaveUp(
                "the model's process fails again and again",
                f"it was restarted {len(self.times)} times within {BREAKER_WINDOW_S:.0f} s",
                "run `device_runner selftest` on the bundle, or install another",
            )


class ProcessWorker:
    """A model in a child process."""

    def __init__(
        self,
        bundle: str,
        sha256: str,
        *,
        engine: str | None = None,
        threads: int = 1,
        motion: float = 0.0,
        deadline_s: float = 5.0,
        max_restarts: int = 5,
        program: tuple[str, ...] = (sys.executable, "-m", "device_runner.worker.child"),
    ) -> None:
        """Start the process; `wait` says when its model is ready. It ends with the thread that started it."""
        self._order = Order(bundle=bundle, sha256=sha256, engine=engine, threads=threads, motion=motion)
        self._program, self._deadline_s = program, deadline_s
        self._breaker = Breaker(max_restarts)
        self.restarts = 0
        self.ready = NOT_READY
        self._start()

    def wait(self) -> ProcessWorker:
        """Until the model is loaded and passed its self-test.

        Raises:
            BundleError, EngineError, SelfTestError: as `Model.open`; or the process died or hung.
        """
        try:
            ready = self._reply(START_S)
        except Problem:
            self._stop()
            raise
        if not isinstance(ready, Ready):
            self._stop()
            raise EngineError("the model's process spoke out of turn", type(ready).__name__, "report this as a bug")
        self.ready = ready
        return self

    def _start(self) -> None:
        theirs_in, self._requests = os.pipe()
        self._replies, theirs_out = os.pipe()
        self._slot, self._inbox = Slot(), Inbox(self._replies)
        keep = (self._slot.fd, theirs_in, theirs_out)
        order = msgspec.structs.replace(self._order, slot=keep[0], requests=theirs_in, replies=theirs_out)
        argv = [*self._program, msgspec.json.encode(order).decode()]
        try:
            self._child = children.start(argv, keep=keep)
        except OSError as error:
            self._close_ends()
            raise EngineError("the model's process cannot be started", str(error), "free some memory") from error
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._alive = True

    def see(self, frame: Frame) -> Seen:
        """Answer on one frame, within the deadline; a process that died or hung is started anew for the next."""
        if not self._alive:
            self._restart()
        try:
            size = self._slot.put(frame.data)
        except OSError as error:
            raise ImageError("no memory for the frame", str(error), "send smaller frames") from None
        try:  # the pipe is empty and the request small: this never waits
            os.write(self._requests, pack(Request(frame.kind, frame.size, len(frame.data), size)))
        except OSError:
            self._stop()
            raise self._lost("it ended") from None
        seen = self._reply(self._deadline_s)
        if not isinstance(seen, Seen):
            self._stop()
            raise self._lost("it spoke out of turn")
        return seen

    def _restart(self) -> None:
        self._breaker.count()
        self.restarts += 1
        self._start()
        self.wait()

    def _reply(self, within_s: float) -> Ready | Seen:
        deadline = monotonic_ns() + int(within_s * SECOND)
        try:
            body = self._inbox.next(deadline)
            message = None if body is None else REPLIES.decode(body)
        except TooSlow:
            self._stop()
            raise self._lost(f"it did not answer within {within_s:g} s") from None
        except (ValueError, msgspec.MsgspecError):
            self._stop()
            raise self._lost("its answer makes no sense") from None
        if message is None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(1)  # it is about to end by itself: its own code says more
            self._stop()
            raise self._lost(f"it ended with {self._child.returncode}")
        if isinstance(message, Failure):
            problem: type[Problem] = KINDS.get(message.kind, EngineError)
            raise problem(message.what, message.why, message.fix)
        return message

    def _lost(self, why: str) -> EngineError:
        return EngineError("the model's process gave no answer", why, "see what it wrote before; it is started anew")

    def _stop(self) -> None:
        if self._alive:
            self._alive = False
            children.end(self._child)
            self._close_ends()

    def _close_ends(self) -> None:
        self._slot.close()
        os.close(self._requests)
        os.close(self._replies)

    def kill(self) -> None:
        """End the process only: whoever waits for its answer, on another thread, learns of it."""
        self._child.kill()

    def close(self) -> None:
        """End the process."""
        self._stop()
