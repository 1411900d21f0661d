"""The rule engine against an oracle that shares no code with it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import msgspec
from rule_oracle import Oracle, random_rule, random_sequence

from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.config.parts import Rule
from device_runner.rules import Engine, Score, Sight

SEQUENCES = 1_000_000


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """Random rules on random sequences: how many verdicts differ."""
    rng, verdicts, differences, frames = random.Random(1), Counter[str](), 0, 0
    sequences = int(SEQUENCES * scale)
    for _ in range(sequences):
        rule = msgspec.convert(random_rule(rng), Rule)
        engine, oracle = Engine([rule]), Oracle(rule)
        for captured, now, inert, confidence, other, minute in random_sequence(rng):
            scores = {} if inert else {rule.label: Score(confidence, other)}
            sight = Sight(captured_ns=captured, now_ns=now, inert=inert, scores=scores, minute=minute)
            verdict = engine.step(sight)[rule.name]
            differences += verdict != oracle.step(captured, now, inert, confidence, other, minute)
            verdicts[verdict] += 1
            frames += 1
    result = {"sequences": sequences, "frames": frames, "differences": differences, "verdicts": dict(verdicts)}
    broken = Failure(what=f"{differences} verdicts differ", why="the engine or the oracle is wrong", fix="mend it")
    return Measured(result, broken if differences else None, notes=(str(result),))
