"""A slow-down of 2 % is planted in the runner's preprocessing 100 times; 100 times nothing is. What does the gate say?

Every count is a process of its own, started as `shrink bench` starts it; nearly all of its 4 s are imports on the
emulated processor. Each is compared with the one before without a plant: an A/A pair is two processes of the same
runner, a planted pair one of it and one whose preprocessing does more. The plants differ: three places (decoding,
resizing, the tensor) and three kinds (an interpreted loop, arrays copied, objects made). How much each has to do for
2 % is found from two counts of the plant alone.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.bundle import open_bundle
from device_runner.probe.record import Instructions
from shrink.boards.board import Board
from shrink.boards.counting import count
from shrink.boards.emulator import emulated
from shrink.boards.packing import pack, runner_files
from shrink.boards.places import places
from shrink.compare.estimates import instructions
from shrink.compare.gates import Estimate, judge, parse
from shrink.compare.sides import Side

PAIRS, SLOWER = 100, 0.02
CPU, TARGET = "cortex-a72", "tflite-int8"
GATE = "instructions<=1.01x"  # the one of docs/gate.md
PREPROCESS = "device_runner/preprocess.py"
PLACES = ("decode", "pixels", "tensor")
KINDS = {
    "loop": "for _ in range({n}): pass",
    "copies": "a = np.arange(256)\n    for _ in range({n}): a = a.copy()",
    "objects": "[[] for _ in range({n})]",
}
PLANT = """

def _planted():
    {work}

_plain_{place} = {place}

def {place}(*arguments):
    _planted()
    return _plain_{place}(*arguments)
"""
PROBE = (200, 2200)  # repetitions of the plant from which its cost is found


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts of one bundle with this runner or another."""

    board: Board
    bundle: Path
    scratch: Path
    numbers: Iterator[int]

    def count(self, files: dict[str, bytes]) -> Instructions:
        """In a process of its own."""
        runner = self.scratch / pack(files, self.scratch)
        return count(self.board, runner, self.bundle, self.scratch / f"counts-{next(self.numbers)}")


def measure(run: Path, scale: float, scratch: Path) -> Measured:
    """All pairs; a plant that passes the gate or an alarm without one breaks the promise."""
    pairs = max(round(PAIRS * scale), 1)
    bundle = scratch / pack(open_bundle(run / TARGET).files, scratch)
    counter = Counter(emulated(f"qemu:{CPU}", places(os.environ)), bundle, scratch, itertools.count())
    found = measure_pairs(counter, pairs)
    broken = found["missed"] or found["false_alarms"]
    failure = Failure(what="the gate is wrong", why=f"{found['missed']} missed, {found['false_alarms']} false alarms",
                      fix="see the row") if broken else None  # fmt: skip
    return Measured(result=found, failure=failure, notes=(f"{found['seconds_each']:.1f} s a count",))


def measure_pairs(counter: Counter, pairs: int) -> dict[str, Any]:
    """Counts and outcomes of that many A/A pairs and planted pairs."""
    plain = runner_files()
    start = time.monotonic()
    before = counter.count(plain)
    plants = [sized(counter, before, kind, place) for kind, place in itertools.product(KINDS, PLACES)]
    same, planted, more = [], [], []
    for number in range(pairs):
        now = counter.count(plain)
        same.append(outcome(before, now))
        kind, place, n = plants[number % len(plants)]
        slow = counter.count(with_plant(plain, kind, place, n))
        planted.append(outcome(now, slow))
        more.append(share(now, slow))
        before = now
    counts = 1 + 2 * len(plants) + 2 * pairs
    return {
        "pairs": pairs,
        "gate": GATE,
        "cpu": CPU,
        "preprocess": before.regions["preprocess"].total,
        "plants": [{"kind": kind, "place": place, "repetitions": n} for kind, place, n in plants],
        "planted_share": [round(one, 5) for one in more],
        "aa_ratio": [one.value for one, _ in same],
        "missed": sum(said == "pass" for _, said in planted),
        "false_alarms": sum(said != "pass" for _, said in same),
        "seconds_each": round((time.monotonic() - start) / counts, 2),
    }


def sized(counter: Counter, before: Instructions, kind: str, place: str) -> tuple[str, str, int]:
    """The plant, and how often it is repeated to cost 2 %, rounded up."""
    few, many = (counter.count(with_plant(runner_files(), kind, place, n)).regions["preprocess"].total for n in PROBE)
    each = (many - few) / (PROBE[1] - PROBE[0])
    wanted = before.regions["preprocess"].total * (1 + SLOWER)
    return kind, place, max(math.ceil(PROBE[0] + (wanted - few) / each), 1)


def with_plant(files: dict[str, bytes], kind: str, place: str, n: int) -> dict[str, bytes]:
    """The runner with more work in that function."""
    plant = PLANT.format(work=KINDS[kind].format(n=n), place=place)
    return {**files, PREPROCESS: files[PREPROCESS] + plant.encode()}


def share(old: Instructions, new: Instructions) -> float:
    """How much more the preprocessing takes."""
    return new.regions["preprocess"].total / old.regions["preprocess"].total - 1


def outcome(old: Instructions, new: Instructions) -> tuple[Estimate, str]:
    """What `shrink compare --gate` says of the two."""
    sides = [Side(name, TARGET, 1, None, None, {part: region.total for part, region in one.regions.items()})
             for name, one in (("old", old), ("new", new))]  # fmt: skip
    (gate,) = parse([GATE])
    found = instructions(*sides, gate.limit)
    assert isinstance(found, Estimate)
    return found, judge(gate, found)
