"""Carries out what rules decided: an unlock now or never, an alert in any case.

    decision --record--> audit --unlock--> done at once, if it is still fresh     (at most once)
                               --alert---> spool --> delivered, in order          (at least once)

Everything slow happens on threads of this module; the loop hands over and goes on. An unlock whose record could not be
written is not done: what cannot be explained must not happen.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec

from device_runner import programs, webhooks
from device_runner.audit import Audit, Record
from device_runner.clock import SECOND, monotonic_ns
from device_runner.config.parts import Action, Config
from device_runner.rules import FIRED
from device_runner.spool import Alert, Spool

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 30.0
MAX_WAITING = 64  # decisions between the loop and the disk
PATIENCE_S = 5.0  # at most, for room among them, where frames can wait
LAST_S = 2.0  # for what waits at the end; a stop takes five seconds at most

Publish = Callable[[str, bytes, int, float], bool]
"""topic, payload, QoS, seconds -> whether it was sent (QoS 0) or acknowledged (QoS 1) in that time."""


@dataclass
class Counts:
    """Of actions, since the start."""

    unlocks_done: int = 0
    unlocks_failed: int = 0
    unlocks_late: int = 0  # past their expiry, or another one was still under way
    unlocks_unrecorded: int = 0  # not done because the audit could not be written
    alerts_kept: int = 0
    alerts_delivered: int = 0
    alerts_retried: int = 0
    lost: int = 0  # decisions that never reached the disk, because it hangs

    def as_dict(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Delivery:
    """All actions of a configuration, with their threads. `close` ends them.

    Args:
        patient: the frames are of files, which wait for a slow disk; those of a camera do not.
    """

    def __init__(
        self,
        config: Config,
        log: Audit,
        publish: Publish | None = None,
        retry_first_s: float = RETRY_FIRST_S,
        *,
        patient: bool = False,
    ) -> None:
        self._config, self._audit, self._publish, self._retry_first_s = config, log, publish, retry_first_s
        self._patient = patient
        self._actions: Mapping[str, Action] = {action.name: action for action in config.action}
        self.counts = Counts()
        self.spool = Spool(Path(config.state) / "spool", config.spool_max_bytes) if config.state else None
        self._records: queue.Queue[tuple[Record, Action | None] | None] = queue.Queue(MAX_WAITING)
        self._unlocks: queue.Queue[tuple[Record, Action] | None] = queue.Queue(1)
        self._news = threading.Event()  # there is an alert
        self._again = threading.Event()  # what failed may work now
        self._closing = threading.Event()
        self._ended = threading.Event()  # nothing more is begun
        self._threads = [
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True)
            for work in (self._recorder, self._unlocker, self._alerter)
        ]
        for thread in self._threads:
            thread.start()

    def conclude(self, record: Record) -> None:
        """Record a decision and do its action. Returns at once, or when there is room if it is patient."""
        action = self._actions.get(record.rule.action or "")
        item = record, None if record.verdict != FIRED or record.dry_run else action
        try:
            self._records.put(item, block=self._patient, timeout=PATIENCE_S)
        except queue.Full:
            self.counts.lost += 1

    def _recorder(self) -> None:
        while (item := self._records.get()) is not None:
            record, action = item
            recorded = self._audit.write(record)
            if action is None:
                continue
            if action.delivery == "alert":
                self._keep(record, action)
            elif not recorded:
                self.counts.unlocks_unrecorded += 1
            else:
                try:
                    self._unlocks.put_nowait((record, action))
                except queue.Full:
                    self.counts.unlocks_late += 1

    def _keep(self, record: Record, action: Action) -> None:
        if self.spool is not None and self.spool.add(make_alert(record, action, self._config.device)):
            self.counts.alerts_kept += 1
            self._news.set()

    def _unlocker(self) -> None:
        while (item := self._unlocks.get()) is not None:
            record, action = item
            left_s = action.expiry_s - (monotonic_ns() - record.sight.captured_ns) / SECOND
            if left_s <= 0 or self._ended.is_set():
                self.counts.unlocks_late += 1
            elif self._do(make_alert(record, action, self._config.device), action, 0, left_s):
                self.counts.unlocks_done += 1
            else:
                self.counts.unlocks_failed += 1

    def _alerter(self) -> None:
        pause_s: dict[str, float] = {}  # action -> pause after its last failure
        while not self._closing.is_set():
            self._news.clear()
            failed = self._deliver_all(set())
            pause_s = {name: min(pause_s.get(name, self._retry_first_s / 2) * 2, RETRY_MAX_S) for name in failed}
            if pause_s:
                self._again.wait(min(pause_s.values()))  # news do not shorten the pause; `wake` does
                self._again.clear()
            else:
                self._news.wait()
        self._deliver_all(set(pause_s))  # what was decided last; what has failed waits for the next start

    def _deliver_all(self, failed: set[str]) -> set[str]:
        """Every waiting alert in order; the names of actions that failed, whose later alerts wait behind."""
        for number in self.spool.waiting() if self.spool else ():
            alert = self.spool.read(number) if self.spool else None
            if alert is None or alert.action in failed or self._ended.is_set():
                continue
            action = self._actions.get(alert.action)
            if action is None or self._do(alert, action, 1, action.timeout_s):
                self.spool.done(number)  # type: ignore[union-attr]  # an action that is configured no more is dropped
                self.counts.alerts_delivered += action is not None
            else:
                failed.add(alert.action)
                self.counts.alerts_retried += 1
        return failed

    def _do(self, alert: Alert, action: Action, qos: int, within_s: float) -> bool:
        if action.exec is not None:
            values = {"rule": alert.rule, "label": alert.label, "confidence": alert.confidence, "id": alert.id}
            return programs.run(programs.fill(action.exec, values), action.timeout_s)  # it was started in time
        body = msgspec.json.encode(alert)
        if action.webhook is not None:
            return webhooks.post(action.webhook, action.token_file, body, within_s)
        return self._publish is not None and self._publish(action.mqtt or "", body, qos, within_s)

    def wake(self) -> None:
        """The broker is back: try again now."""
        self._again.set()

    def close(self) -> None:
        """Write and tell what was decided, stop; alerts that cannot be told stay in the spool for the next start."""
        self._records.put(None)
        self._threads[0].join(5)
        self._closing.set()
        self._news.set()
        self._again.set()
        deadline = monotonic_ns() + int(LAST_S * SECOND)
        with contextlib.suppress(queue.Full):  # a program that hangs, and an unlock behind it
            self._unlocks.put(None, timeout=LAST_S)
        for thread in self._threads[1:]:
            thread.join(max(0, deadline - monotonic_ns()) / SECOND)
        self._ended.set()
        for thread in self._threads[1:]:
            thread.join(5)


def make_alert(record: Record, action: Action, device: str) -> Alert:
    """What is told of a decision."""
    score = record.sight.scores[record.rule.label]
    return Alert(
        id=record.id,
        device=device,
        action=action.name,
        rule=record.rule.name,
        label=record.rule.label,
        confidence=score.confidence,
        wall=record.wall,
        seq=record.seq,
        model=record.model,
    )
