"""A model on trial: it answers the same frames as the one that decides, on a thread of its own, and decides nothing."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from device_runner.bundle import Bundle
from device_runner.config.parts import Trial
from device_runner.errors import ImageError, Problem
from device_runner.frames import Frame
from device_runner.worker.messages import Seen
from device_runner.worker.process import ProcessWorker


@dataclass
class Health:
    """What a trial has shown so far; `verdict` judges it."""

    limits: Trial
    new_ms: list[float] = field(default_factory=list)  # one per frame, at most limits.frames
    old_ms: list[float] = field(default_factory=list)
    disagreements: int = 0

    def count(self, old: tuple[str, float], new: tuple[str, float]) -> None:
        """One frame that both answered, each as (label, milliseconds of the model)."""
        self.disagreements += old[0] != new[0]
        self.old_ms.append(old[1])
        self.new_ms.append(new[1])

    @property
    def disagreement(self) -> float:
        """Share of frames where the two name different labels."""
        return self.disagreements / max(len(self.new_ms), 1)

    def verdict(self) -> str | None:
        """None: not enough frames yet; empty: healthy; else what is wrong."""
        if len(self.new_ms) < self.limits.frames:
            return None
        allowed = self.limits.max_p90_ms or 3 * p90(self.old_ms)
        if p90(self.new_ms) > allowed:
            return f"p90 of the model is {p90(self.new_ms):.3g} ms, {allowed:.3g} ms allowed"
        if self.disagreement > self.limits.max_disagreement:
            most = self.limits.max_disagreement
            return f"it names another label in {self.disagreement:.0%} of frames, {most:.0%} allowed"
        return ""


def p90(values: list[float]) -> float:
    """The value that 90 % do not exceed."""
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * 9 // 10) - 1, 0)]


class Shadow:
    """The thread of a trial. `outcome` is None while it runs, then empty for healthy, or what is wrong."""

    def __init__(self, bundle: Bundle, limits: Trial, worker: ProcessWorker) -> None:
        """Begin; `worker` is a process that was started and has not been waited for."""
        self.bundle, self.health, self.worker = bundle, Health(limits), worker
        self.outcome: str | None = None
        self._frames: queue.Queue[tuple[Frame, Seen, str]] = queue.Queue(1)
        self._thread = threading.Thread(target=self._work, name="trial", daemon=True)
        self._thread.start()

    def offer(self, frame: Frame, seen: Seen, label: str) -> None:
        """A frame that the deciding model has answered; skipped while the trial is busy."""
        if self.outcome is None and self._frames.empty():
            self._frames.put((frame, seen, label))

    def _work(self) -> None:
        try:
            self.worker.wait()
            labels = self.bundle.manifest.labels
            while (item := self._next()) is not None:
                frame, old, label = item
                try:
                    new = self.worker.see(frame)
                except ImageError as problem:
                    self.outcome = f"it refuses a frame that the current model took: {problem.why}"
                    return
                best = labels[max(range(len(labels)), key=new.confidences.__getitem__)]
                self.health.count((label, old.model_ms), (best, new.model_ms))
                self.outcome = self.health.verdict()
        except Problem as problem:
            self.outcome = self.outcome or f"{problem.what}: {problem.why}"

    def _next(self) -> tuple[Frame, Seen, str] | None:
        """The next frame; None once there is an outcome."""
        while self.outcome is None:
            with suppress(queue.Empty):
                return self._frames.get(timeout=0.2)
        return None

    def close(self, *, keep_worker: bool = False) -> None:
        """End the thread and, unless it takes over, the worker."""
        if not keep_worker:
            self.outcome = self.outcome or "it was ended"
            self.worker.kill()
        self._thread.join(10)
        if not keep_worker:
            self.worker.close()
