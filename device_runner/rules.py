"""When to act: a pure function of what was seen and when. It knows no camera, no model and no clock of its own.

For every frame and rule, in this order; the first line that applies is the verdict:

1. The frame decides nothing (no answer, an answer that is no number, a frozen or covered camera, a model on trial, a
   device that is disarmed), is older than `max_age_ms`, or comes at a time that is not of the rule's `hours`: all votes
   are forgotten. Verdict: that reason; `clock` where the rule has hours and the device's clock is not set.
2. The frame votes. Yes: confidence >= min_confidence, and confidence minus the best other label's >= min_margin. Of the
   votes, the last n count, and of those the ones whose frame was captured at most `within_s` ago.
3. A rule that has fired is held until a frame whose confidence is below `release_below`.
4. Verdict `confidence` or `margin` if the frame voted no, `votes` if fewer than k count as yes, `held`, `cooldown` if
   less than `cooldown_s` passed since it fired; otherwise `fired`, and its votes start anew.

Confidences, margins and their limits are compared as 32-bit floats: a model that answers 0.9 does meet 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from device_runner import hours
from device_runner.clock import MS, SECOND
from device_runner.config.parts import Rule
from device_runner.float32 import f32

FIRED = "fired"


class Score(msgspec.Struct, frozen=True, array_like=True):
    """What the model said of one label."""

    confidence: float  # 0..1
    other: float  # the best confidence among all other labels; 0 if there is none


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """One frame, as the rules see it."""

    captured_ns: int
    now_ns: int  # when it is decided on
    inert: str | None  # why the frame decides nothing; None: it may
    scores: dict[str, Score]  # of the labels that rules name; empty if there is no answer
    minute: int | None = None  # of the local week; None: not known, or no rule has hours


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule remembers between frames."""

    votes: tuple[tuple[int, bool], ...] = ()  # (captured_ns, yes), the oldest first, at most n
    held: bool = False  # it fired, and was not released since
    fired_ns: int | None = None  # when it last did


class Engine:
    """All rules with their memories."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.memories = {rule.name: Memory() for rule in self.rules}

    def forget_votes(self) -> None:
        """Start to count anew; what is held stays held."""
        replace = msgspec.structs.replace
        self.memories = {name: replace(memory, votes=()) for name, memory in self.memories.items()}

    def step(self, sight: Sight) -> dict[str, str]:
        """Decide on one frame: rule name -> verdict."""
        verdicts, memories = {}, {}
        for rule in self.rules:
            verdicts[rule.name], memories[rule.name] = decide(rule, self.memories[rule.name], sight)
        self.memories = memories
        return verdicts


def decide(rule: Rule, memory: Memory, sight: Sight) -> tuple[str, Memory]:
    """The verdict of one rule on one frame, and what it remembers after."""
    reason = sight.inert or _too_old(rule, sight) or _out_of_hours(rule, sight)
    if reason is not None:
        return reason, msgspec.structs.replace(memory, votes=())
    score = sight.scores[rule.label]
    no = _votes_no(rule, score)
    votes = _counted(rule, (*memory.votes, (sight.captured_ns, no is None)), sight.now_ns)
    release = rule.min_confidence if rule.release_below is None else rule.release_below
    held = memory.held and not f32(score.confidence) < f32(release)  # NaN releases nothing
    verdict = no or _held_back(rule, votes, held, memory.fired_ns, sight.now_ns) or FIRED
    if verdict == FIRED:
        return verdict, Memory(votes=(), held=True, fired_ns=sight.now_ns)
    return verdict, Memory(votes=votes, held=held, fired_ns=memory.fired_ns)


def _too_old(rule: Rule, sight: Sight) -> str | None:
    age_ns = sight.now_ns - sight.captured_ns
    return "stale" if age_ns < 0 or age_ns > rule.max_age_ms * MS else None  # a frame from the future is not fresh


def _out_of_hours(rule: Rule, sight: Sight) -> str | None:
    if not rule.hours:
        return None
    if sight.minute is None:
        return "clock"
    return None if hours.within(rule.hours, sight.minute) else "hours"


def _votes_no(rule: Rule, score: Score) -> str | None:
    if not f32(score.confidence) >= f32(rule.min_confidence):  # so that NaN votes no
        return "confidence"
    if not f32(score.confidence - score.other) >= f32(rule.min_margin):
        return "margin"
    return None


def _counted(rule: Rule, votes: tuple[tuple[int, bool], ...], now_ns: int) -> tuple[tuple[int, bool], ...]:
    return tuple(vote for vote in votes[-rule.n :] if now_ns - vote[0] <= rule.within_s * SECOND)


def _held_back(
    rule: Rule, votes: tuple[tuple[int, bool], ...], held: bool, fired_ns: int | None, now_ns: int
) -> str | None:
    if sum(yes for _, yes in votes) < rule.k:
        return "votes"
    if held:
        return "held"
    if fired_ns is not None and now_ns - fired_ns < rule.cooldown_s * SECOND:
        return "cooldown"
    return None


def score_labels(confidences: Sequence[float], indices: Mapping[str, int]) -> dict[str, Score]:
    """Score of each named label.

    Args:
        confidences: of all labels, in the order of the model.
        indices: label -> its place; of the labels that rules name.
    """
    best = max(confidences)
    place = confidences.index(best)
    others = (*confidences[:place], *confidences[place + 1 :])
    second = max(others, default=0.0)
    return {label: Score(confidences[i], second if i == place else best) for label, i in indices.items()}
