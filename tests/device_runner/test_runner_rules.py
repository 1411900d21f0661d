"""When a rule fires, against an independent oracle, and state by state."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_oracle import Oracle, in_hours, random_rule, random_sequence

from device_runner.audit import Record, replay
from device_runner.config.parts import Rule
from device_runner.hours import within
from device_runner.rules import FIRED, Engine, Memory, Score, Sight, decide, score_labels

MS = 1_000_000
SEQUENCES = 2000  # benchmarks.runner.rules does a million


def sight(confidence: float, *, at_ms: int = 0, age_ms: int = 0, inert: str | None = None, other: float = 0.0) -> Sight:
    scores = {} if inert else {"cat": Score(confidence, other)}
    return Sight(captured_ns=(at_ms - age_ms) * MS, now_ns=at_ms * MS, inert=inert, scores=scores)


def verdicts(rule: Rule, *sights: Sight) -> list[str]:
    engine = Engine([rule])
    return [engine.step(s)["r"] for s in sights]


def rule(**values: object) -> Rule:
    return msgspec.convert({"name": "r", "label": "cat", "min_confidence": 0.9, **values}, Rule)


def test_the_engine_agrees_with_an_independent_oracle():
    rng = random.Random(7)
    seen = set()
    for _ in range(SEQUENCES):
        values = random_rule(rng)
        r = msgspec.convert(values, Rule)
        engine, oracle = Engine([r]), Oracle(r)
        for captured, now, inert, confidence, other, minute in random_sequence(rng):
            scores = {} if inert else {"cat": Score(confidence, other)}
            got = engine.step(Sight(captured_ns=captured, now_ns=now, inert=inert, scores=scores, minute=minute))["r"]
            assert got == oracle.step(captured, now, inert, confidence, other, minute), (values, oracle.history)
            seen.add(got)
    states = {"stale", "covered", "failed", "clock", "hours"}
    assert seen >= {FIRED, "confidence", "margin", "votes", "held", "cooldown", *states}


@pytest.mark.parametrize(
    ("confidence", "verdict"),
    [
        (float(np.float32(0.9)), FIRED),  # 0.8999999762: what a model that says 0.9 gives
        (float(np.nextafter(np.float32(0.9), np.float32(0))), "confidence"),
        (231 / 256, FIRED),  # the first step of a uint8 softmax at or above 0.9
        (230 / 256, "confidence"),
        (1.0, FIRED),
        (float("nan"), "confidence"),
    ],
)
def test_a_threshold_is_met_exactly(confidence: float, verdict: str):
    assert verdicts(rule(), sight(confidence)) == [verdict]


@pytest.mark.parametrize("reason", ["failed", "refused", "frozen", "covered", "disarmed", "trial"])
def test_no_fire_in_any_state_that_decides_nothing(reason: str):
    assert verdicts(rule(), *[sight(1.0, inert=reason)] * 20) == [reason] * 20


def test_a_gap_forgets_the_votes():
    yes = [sight(1.0, at_ms=i * 100) for i in range(3)]
    gap = sight(1.0, at_ms=150, inert="failed")
    assert verdicts(rule(k=3, n=3), *yes) == ["votes", "votes", FIRED]
    assert verdicts(rule(k=3, n=3), yes[0], yes[1], gap, yes[2]) == ["votes", "votes", "failed", "votes"]


@pytest.mark.parametrize("age_ms", [1001, -1])
def test_a_frame_that_is_old_or_from_the_future_decides_nothing(age_ms: int):
    assert verdicts(rule(), sight(1.0, at_ms=5000, age_ms=age_ms)) == ["stale"]


@pytest.mark.parametrize("spans", [("mon-fri 07:00-19:00",), ("22:00-06:00",), ("sat 08:00-12:00", "sun 23:00-01:00")])
def test_hours_are_those_of_a_calendar_in_every_minute_of_the_week(spans: tuple[str, ...]):
    assert [within(spans, minute) for minute in range(10080)] == [in_hours(spans, minute) for minute in range(10080)]


def test_out_of_its_hours_or_without_a_clock_a_rule_decides_nothing_and_forgets():
    r, night = rule(k=2, n=2, hours=["22:00-06:00"]), 23 * 60
    times = [night, 12 * 60, night, night, None, night]
    seen = [msgspec.structs.replace(sight(1.0, at_ms=i * 100), minute=minute) for i, minute in enumerate(times)]
    assert verdicts(r, *seen) == ["votes", "hours", "votes", FIRED, "clock", "votes"]


def test_it_is_held_until_released_and_then_waits_for_the_cooldown():
    r = rule(release_below=0.5, cooldown_s=1)
    steps = [(1.0, 0), (1.0, 100), (0.6, 200), (1.0, 300), (0.4, 400), (1.0, 500), (1.0, 999), (1.0, 1000)]
    expected = [FIRED, "held", "confidence", "held", "confidence", "cooldown", "cooldown", FIRED]
    assert verdicts(r, *(sight(c, at_ms=t) for c, t in steps)) == expected


def test_votes_of_another_model_do_not_count():
    engine = Engine([rule(k=2, n=2)])
    assert engine.step(sight(1.0))["r"] == "votes"
    engine.forget_votes()
    assert engine.step(sight(1.0))["r"] == "votes" and engine.step(sight(1.0))["r"] == FIRED


def test_the_margin_is_to_the_best_other_label():
    assert score_labels([0.2, 0.5, 0.3], {"a": 0, "b": 1}) == {"a": Score(0.2, 0.5), "b": Score(0.5, 0.3)}
    assert score_labels([1.0], {"only": 0}) == {"only": Score(1.0, 0.0)}


@given(st.lists(st.floats(0, 1, width=16), min_size=2, max_size=6))
def test_the_other_score_is_the_best_of_the_rest(confidences: list[float]):
    scores = score_labels(confidences, {str(i): i for i in range(len(confidences))})
    for i, confidence in enumerate(confidences):
        rest = confidences[:i] + confidences[i + 1 :]
        assert scores[str(i)] == Score(confidence, sorted(rest)[-1])


def test_a_record_alone_reproduces_its_verdict_and_a_changed_one_does_not():
    r = rule(k=2, n=3, cooldown_s=1)
    memory = Memory()
    for i in range(30):
        before, s = memory, sight(1.0 if i % 4 else 0.1, at_ms=i * 150)
        verdict, memory = decide(r, before, s)
        record = make_record(r, before, s, verdict, memory)
        again = msgspec.json.decode(msgspec.json.encode(record), type=Record)
        assert replay(again) is None
        other = "votes" if verdict != "votes" else FIRED
        assert "recorded" in str(replay(msgspec.structs.replace(again, verdict=other)))
        forged = msgspec.structs.replace(memory, fired_ns=-5)
        assert replay(msgspec.structs.replace(again, after=forged)) is not None


def make_record(r: Rule, before: Memory, s: Sight, verdict: str, after: Memory) -> Record:
    return Record(
        boot="b",
        seq=1,
        wall=0.0,
        frame="",
        frame_sha256="",
        model="",
        rule=r,
        before=before,
        sight=s,
        verdict=verdict,
        after=after,
        quiet=0,
        dry_run=True,
        id="",
    )
