"""The story of one frame: source, model, guard, rules, outputs. Everything around it is passed in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from device_runner import audit
from device_runner.audit import Audit, Record
from device_runner.clock import MS, boot_id, minute_of_week, monotonic_ns, wall_s
from device_runner.config.parts import Config, Rule
from device_runner.errors import GaveUp, ImageError, Problem
from device_runner.frames import Frame
from device_runner.guard import Guard
from device_runner.rules import FIRED, Engine, Memory, Sight, score_labels
from device_runner.worker.messages import Seen
from device_runner.worker.process import Worker

RECORD_SCHEMA = 1
"""Version of the JSON lines on stdout; a reader should refuse any other."""


@dataclass
class Counts:
    """What became of the frames that were delivered; they add up to `frames`."""

    frames: int = 0
    answered: int = 0
    still: int = 0  # nothing moved: the model was not asked
    refused: int = 0  # not decodable, or too large
    failed: int = 0  # the model gave no answer
    fired: int = 0


class Decision(msgspec.Struct, frozen=True):  # made in a tenth of a frozen dataclass's time
    """What came of one frame."""

    seq: int
    frame: Frame
    seen: Seen | None
    inert: str | None
    verdicts: dict[str, str]
    problem: Problem | None
    age_ms: float
    ids: dict[str, str] = {}  # a new one each; rule that fired -> id of the record


Act = Callable[[Record], None]
"""What is done with a record; returns at once."""


class Loop:
    """Decides on one frame after the other. `worker` may be exchanged between two frames."""

    def __init__(
        self, config: Config, labels: tuple[str, ...], worker: Worker, *, live: bool, log: Audit, act: Act
    ) -> None:
        self.config, self.worker, self.counts = config, worker, Counts()
        self.engine = Engine(config.rule)
        self.guard = Guard(config.source.frozen_s, config.source.covered_s, live)
        self.suspended: str | None = None  # why nothing is decided at all, such as "disarmed"
        self._audit, self._act, self._boot = log, act, boot_id()
        self._has_hours = any(rule.hours for rule in config.rule)
        self._run = os.urandom(4).hex()  # makes ids unique across restarts
        self.use(worker, labels)

    def use(self, worker: Worker, labels: tuple[str, ...]) -> None:
        """From the next frame on, this model decides. Every rule's label must be among the labels.

        Votes of the model before are forgotten: k of n are answers of one model.
        """
        self.worker, self.labels = worker, labels
        self.engine.forget_votes()
        self._indices = {rule.label: labels.index(rule.label) for rule in self.config.rule}

    def frame(self, frame: Frame) -> Decision:
        """Decide on one frame.

        Raises:
            GaveUp: the model's process failed too often.
        """
        self.counts.frames += 1
        seen, inert, problem = self._look(frame)
        now = monotonic_ns()
        verdicts: dict[str, str] = {}
        ids: dict[str, str] = {}
        decision = Decision(
            self.counts.frames, frame, seen, inert, verdicts, problem, (now - frame.captured_ns) / MS, ids
        )
        if inert in ("still", "same"):  # no evidence for or against anything
            return decision
        scores = score_labels(seen.confidences, self._indices) if seen and not inert else {}
        minute = minute_of_week() if self._has_hours else None
        sight = Sight(captured_ns=frame.captured_ns, now_ns=now, inert=inert, scores=scores, minute=minute)
        before = self.engine.memories  # which `step` replaces
        verdicts.update(self.engine.step(sight))
        for rule in self.config.rule:
            due, quiet = self._audit.is_due(rule.name, verdicts[rule.name])
            if due:
                self._conclude(rule, decision, sight, before[rule.name], quiet)
        return decision

    def _look(self, frame: Frame) -> tuple[Seen | None, str | None, Problem | None]:
        """The model's answer and why the frame decides nothing, if so."""
        try:
            seen = self.worker.see(frame)
        except ImageError as problem:
            self.counts.refused += 1
            return None, "refused", problem
        except GaveUp:
            raise
        except Problem as problem:  # no answer, or its process cannot be started again
            self.counts.failed += 1
            return None, "failed", problem
        bad = self.guard.judge(seen.look, frame.captured_ns)
        if not seen.confidences:
            self.counts.still += 1
            return seen, bad or "still", None
        self.counts.answered += 1
        return seen, bad or self.suspended, None

    def _conclude(self, rule: Rule, d: Decision, sight: Sight, before: Memory, quiet: int) -> None:
        name = rule.name
        fired = d.verdicts[name] == FIRED
        if fired:
            self.counts.fired += 1
            d.ids[name] = f"{self._run}-{d.seq}-{name}"
        record = Record(
            boot=self._boot,
            seq=d.seq,
            wall=wall_s(),
            frame=d.frame.name,
            frame_sha256=audit.sha256(d.frame.data),
            model=self.worker.ready.sha256,
            rule=rule,
            before=before,
            sight=msgspec.structs.replace(sight, scores={rule.label: sight.scores[rule.label]} if sight.scores else {}),
            verdict=d.verdicts[name],
            after=self.engine.memories[name],
            quiet=quiet,
            dry_run=self.config.dry_run,
            id=d.ids.get(name, ""),
        )
        self._act(record)
