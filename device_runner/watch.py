"""Watches the runner itself: state, metrics, heat, drift, doubtful frames. Nothing here decides about a rule.

The loop calls `after` for every decision and `tick` about once a second; HTTP threads only read the last snapshot.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from device_runner import metrics
from device_runner.audit import Audit
from device_runner.bus import Bus
from device_runner.clock import SECOND, monotonic_ns
from device_runner.config.parts import Config
from device_runner.delivery import Delivery
from device_runner.drift import ALARM, Drift
from device_runner.heat import Heat
from device_runner.histogram import Histogram
from device_runner.log import Log
from device_runner.loop import Decision, Loop
from device_runner.review import Review
from device_runner.sources.supervisor import Supervisor
from device_runner.swap import Swap

TICK_S = 1.0
HUNG_S = 60.0  # longer than any deadline of a model or a disk


@dataclass
class Parts:
    """What is watched."""

    config: Config
    loop: Loop
    source: Supervisor
    delivery: Delivery
    swap: Swap | None
    bus: Bus | None
    log: Log
    audit: Audit


@dataclass
class Snapshot:
    """What HTTP threads may read; replaced as a whole."""

    metrics: str = ""
    status: dict[str, object] = field(default_factory=dict)
    ready: bool = False
    made_ns: int = 0


class Watch:
    """The watcher of one service."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._start_ns, self._next_ns = parts, monotonic_ns(), 0
        config = parts.config
        self.heat = Heat(config.heat) if config.heat else None
        self.drift, self._model = Drift(), parts.loop.worker.ready.sha256
        self.inference = Histogram()
        folder = Path(config.state) / "review" if config.state else None
        self.review = Review(folder, config.review) if config.review and folder else None
        self.snapshot = Snapshot()
        self._restarts, self._last_label = 0, ""

    def after(self, decision: Decision, label: str, confidence: float) -> None:
        """One answered frame: its best label and how confident it is."""
        seen = decision.seen
        if seen is None or not seen.confidences:
            return
        self.inference.add(seen.model_ms / 1000)
        self.drift.add(self._parts.loop.labels.index(label), confidence)
        if self.review:
            self.review.offer(decision.frame, label, confidence, self._parts.loop.worker.ready.sha256)
        bus = self._parts.bus
        if bus and bus.client.state == "online" and label != self._last_label and decision.inert is None:
            self._last_label = label
            bus.tell("seen", json.dumps({"label": label, "confidence": round(confidence, 4)}).encode())

    def tick(self) -> None:
        """Once a second: look at the sensors, tell the state."""
        now = monotonic_ns()
        if now < self._next_ns:
            return
        self._next_ns = now + int(TICK_S * SECOND)
        parts = self._parts
        if parts.loop.worker.ready.sha256 != self._model:
            self.drift, self._model = Drift(), parts.loop.worker.ready.sha256
        if parts.source.state == "stalled":
            parts.loop.guard.forget()
        if self.heat:
            parts.source.slowdown = self.heat.step(now)
            if self.heat.undervoltage:
                parts.log.say("warning: the power supply is too weak (under-voltage)")
        if parts.bus:
            parts.loop.suspended = "disarmed" if parts.bus.disarmed else None
        self._tell()

    def _tell(self) -> None:
        status = self.status()
        values = self.values()
        model = {"sha256": self._model, "engine": self._parts.loop.worker.ready.engine}
        self.snapshot = Snapshot(
            metrics.render(values, model, self.inference), status, not status["degraded"], monotonic_ns()
        )
        if self._parts.bus:
            self._parts.bus.status(json.dumps(status).encode())

    def status(self) -> dict[str, object]:
        """The state in words; changes seldom, so that it may be published on every change."""
        p = self._parts
        drifting = self.drift.psi is not None and self.drift.psi > ALARM
        reasons = {
            "source": p.source.state in ("stalled", "connecting"),
            "mqtt": p.bus is not None and p.bus.client.state != "online",
            "tamper": p.loop.guard.tampered is not None,
            "disk": self._disk_failures() > 0,
            "drift": drifting,
            "undervoltage": bool(self.heat and self.heat.undervoltage),
        }
        return {
            "source": p.source.state,
            "tamper": p.loop.guard.tampered,
            "model": p.loop.worker.ready.sha256,
            "trial": p.swap.shadow.bundle.sha256 if p.swap and p.swap.shadow else None,
            "armed": p.loop.suspended is None,
            "dry_run": p.config.dry_run,
            "degraded": [name for name, holds in reasons.items() if holds],
        }

    def _disk_failures(self) -> int:
        p = self._parts
        spool = p.delivery.spool.failed if p.delivery.spool else 0
        return p.audit.failed + spool + p.delivery.counts.lost + (self.review.failed if self.review else 0)

    def values(self) -> dict[str, float | None]:
        """Every series of `metrics.HELP` that is known here."""
        p = self._parts
        counts, source, done = p.loop.counts, p.source.counts, p.delivery.counts
        return {
            "up_seconds": (monotonic_ns() - self._start_ns) / SECOND,
            "frames_received_total": source.received,
            "frames_dropped_total": source.dropped,
            "frames_processed_total": counts.frames,
            "frames_refused_total": counts.refused,
            "frames_still_total": counts.still,
            "inference_failures_total": counts.failed,
            "model_restarts_total": getattr(p.loop.worker, "restarts", 0),
            "source_starts_total": source.starts,
            "source_stalls_total": source.stalls,
            "source_live": p.source.state == "live",
            "tampered": p.loop.guard.tampered is not None,
            "mqtt_online": None if p.bus is None else p.bus.client.state == "online",
            "rules_fired_total": counts.fired,
            "unlocks_done_total": done.unlocks_done,
            "unlocks_dropped_total": done.unlocks_late + done.unlocks_failed + done.unlocks_unrecorded,
            "alerts_delivered_total": done.alerts_delivered,
            "alerts_evicted_total": p.delivery.spool.evicted if p.delivery.spool else 0,
            "alerts_waiting": len(p.delivery.spool) if p.delivery.spool else 0,
            "disk_failures_total": self._disk_failures(),
            "temperature_celsius": self.heat.celsius if self.heat else None,
            "undervoltage": self.heat.undervoltage if self.heat else None,
            "slowdown": p.source.slowdown,
            "memory_bytes": memory_bytes(),
            "swaps_total": p.swap.swaps if p.swap else 0,
            "rollbacks_total": p.swap.rollbacks if p.swap else 0,
            "trial_frames": len(p.swap.shadow.health.new_ms) if p.swap and p.swap.shadow else 0,
            "drift_psi": self.drift.psi,
        }

    def metrics_page(self) -> tuple[int, str]:
        """For Prometheus."""
        return 200, self.snapshot.metrics

    def health_page(self) -> tuple[int, str]:
        """Whether the loop turns: it replaces the snapshot once a second."""
        turns = monotonic_ns() - self.snapshot.made_ns < HUNG_S * SECOND
        return (200 if turns else 503), json.dumps(self.snapshot.status) + "\n"

    def ready_page(self) -> tuple[int, str]:
        """Frames come and nothing is degraded."""
        return (200 if self.snapshot.ready else 503), json.dumps(self.snapshot.status) + "\n"

    def close(self) -> None:
        """Write what waits."""
        if self.review:
            self.review.close()


def memory_bytes() -> float | None:
    """Resident memory of this process and its children."""
    total = 0
    pids = [os.getpid()]
    with suppress(OSError, ValueError, IndexError):
        for task in Path("/proc/self/task").iterdir():
            pids += map(int, (task / "children").read_text(encoding="ascii").split())
        for pid in pids:
            with suppress(FileNotFoundError):
                total += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return float(total * os.sysconf("SC_PAGE_SIZE"))
    return None
