"""The rules once more, naively: the whole history is kept and searched for every frame.

Shares no code with the engine."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass
class Oracle:
    """One rule. `history` holds every frame since the start, as the rule saw it."""

    rule: Any
    history: list[dict[str, Any]] = field(default_factory=list)

    def step(
        self, captured: int, now: int, inert: str | None, confidence: float, other: float, minute: int | None
    ) -> str:
        r = self.rule
        age_ms = (now - captured) / 1e6
        entry = {"captured": captured, "now": now, "confidence": np.float32(confidence), "gap": False, "fired": False}
        self.history.append(entry)
        if inert:
            entry["gap"] = True
            return inert
        if age_ms < 0 or age_ms > r.max_age_ms:
            entry["gap"] = True
            return "stale"
        if r.hours and (minute is None or not in_hours(r.hours, minute)):
            entry["gap"] = True
            return "clock" if minute is None else "hours"
        sure = bool(np.float32(confidence) >= np.float32(r.min_confidence))
        clear = bool(np.float32(confidence - other) >= np.float32(r.min_margin))
        entry["yes"] = sure and clear
        if not sure:
            return "confidence"
        if not clear:
            return "margin"
        if sum(self._counting_votes(now)) < r.k:
            return "votes"
        fires = [i for i, e in enumerate(self.history) if e["fired"]]
        if fires:
            release = np.float32(r.min_confidence if r.release_below is None else r.release_below)
            since = [e for e in self.history[fires[-1] + 1 :] if not e["gap"]]
            if not any(e["confidence"] < release for e in since):
                return "held"
            if now - self.history[fires[-1]]["now"] < r.cooldown_s * 1e9:
                return "cooldown"
        entry["fired"] = True
        return "fired"

    def _counting_votes(self, now: int) -> list[bool]:
        """The votes since the last gap or fire: the last n of them, of which those captured in time."""
        votes = []
        for e in reversed(self.history):
            if e["gap"] or e["fired"]:
                break
            votes.append(e)
        kept: list[dict[str, Any]] = []
        for e in reversed(votes):  # a vote that was once too old was dropped, and leaves room for no other
            kept = [*kept, e][-self.rule.n :]
            kept = [k for k in kept if e["now"] - k["captured"] <= self.rule.within_s * 1e9]
        return [k["yes"] for k in kept]


def in_hours(spans: tuple[str, ...], minute: int) -> bool:
    return any(minute in minutes_of(span) for span in spans)


@lru_cache
def minutes_of(span: str) -> frozenset[int]:
    """The minutes of the week in a span, found by walking through each of its days on a calendar."""
    monday = datetime(2024, 1, 1)  # one
    *days, times = span.split()
    names = [(monday + timedelta(number)).strftime("%a").lower() for number in range(14)]
    first, last = (days[0].split("-") * 2)[:2] if days else ("mon", "sun")
    start = names.index(first)
    begin, end = ((int(t[:2]) * 60 + int(t[3:])) for t in times.split("-"))
    found = set()
    for day in range(start, names.index(last, start) + 1):
        here = monday + timedelta(day, minutes=begin)
        until = monday + timedelta(day if end >= begin else day + 1, minutes=end)
        while here < until:
            found.add((here.weekday() * 24 + here.hour) * 60 + here.minute)
            here += timedelta(minutes=1)
    return frozenset(found)


HOURS = [
    ["mon-fri 07:00-19:00"],
    ["22:00-06:00"],
    ["sat 08:00-12:00", "sun 23:30-24:00"],
    ["sun 23:00-01:00"],
    ["fri-mon 00:00-24:00"],
]
EDGES = [
    0,
    59,
    60,
    360,
    419,
    420,
    1139,
    1140,
    1319,
    1320,
    4 * 1440 + 600,
    5 * 1440 + 480,
    5 * 1440 + 720,
    10049,
    10050,
    10079,
]


def random_rule(rng: random.Random) -> dict[str, Any]:
    """Values with many ties and edges, as TOML would give them."""
    n = rng.randint(1, 6)
    confidence = rng.choice([0.3, 0.5, 0.7, 0.9])
    return {
        "name": "r",
        "label": "cat",
        "min_confidence": confidence,
        "min_margin": rng.choice([0.0, 0.0, 0.1, 0.4]),
        "k": rng.randint(1, n),
        "n": n,
        "within_s": rng.choice([0.3, 1.0, 10.0]),
        "release_below": rng.choice([None, confidence, confidence / 2]),
        "cooldown_s": rng.choice([0.0, 0.25, 0.5, 2.0]),
        "max_age_ms": rng.choice([50.0, 200.0]),
        "hours": rng.choice(HOURS) if rng.random() < 0.25 else [],
    }


def random_sequence(rng: random.Random) -> list[tuple[int, int, str | None, float, float, int | None]]:
    """(captured, now, inert, confidence, other, minute) of up to 24 frames; a steady mood, so that rules do fire."""
    frames, now, mood, minute = [], 10**9, rng.random(), rng.choice([None, *EDGES])
    for _ in range(rng.randint(1, 24)):
        now += rng.choice([50, 100, 100, 250, 500, 1000]) * 10**6
        age = rng.choice([0, 1, 20, 50, 50, 200, 201, -1]) * 10**6
        inert = rng.choice(["covered", "failed", "disarmed"]) if rng.random() < 0.05 else None
        if rng.random() < 0.2:
            mood = rng.random()
        if rng.random() < 0.05:
            minute = rng.choice([None, *EDGES])
        confidence = rng.choice([mood, 0.3, 0.5, 0.7, 0.9, 0.9, 1.0, 0.0, float(np.float32(0.9)), float("nan")])
        frames.append((now - age, now, inert, confidence, rng.choice([0.0, 0.1, 0.3, 0.5, 0.9]), minute))
    return frames
