"""A slow-down of 2 % is planted in the runner's preprocessing 100 times; 100 times nothing is. What does the gate say?

A process is started as `shrink bench` starts one, loads the bundle, and has a child for every count; what is compared
comes from two starts: an A/A pair is the same runner in both, a planted pair has more to do in the second. The plants
differ: three places (decoding, resizing, the tensor) and three kinds (an interpreted loop, lists made, text made). How
much each has to do for 2 % is found from two counts of it.
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
from benchmarks.onboard import guest
from benchmarks.onboard.guest import KINDS, PLACES, Plant
from benchmarks.rows import Failure
from device_runner.bundle import open_bundle
from device_runner.probe.counted import REPEATS
from device_runner.probe.markers import PARTS
from device_runner.probe.record import Instructions
from shrink.boards.board import Board
from shrink.boards.counting import read_counts, run_counted
from shrink.boards.emulator import emulated
from shrink.boards.packing import pack, runner_files
from shrink.boards.places import places
from shrink.compare.estimates import instructions
from shrink.compare.gates import Estimate, judge, parse
from shrink.compare.sides import Side

PAIRS, EACH, SLOWER = 100, 10, 0.02  # pairs of each kind, and of them in one start
CPU, TARGET = "cortex-a72", "tflite-int8"
GATE = "instructions<=1.01x"  # the one of docs/gate.md
PROBES = (1, 1001)  # repetitions of a plant from which its cost is found
PLAIN: Plant = ("loop", "decode", 0)


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts of one bundle in processes that are started one after the other."""

    board: Board
    runner: Path
    bundle: Path
    scratch: Path
    numbers: Iterator[int]

    def start(self, plants: list[Plant]) -> list[Instructions]:
        """Of the whole process first, then of a child for every plant."""
        source = Path(guest.__file__).read_text(encoding="utf-8")
        call = f"count_all({str(self.bundle)!r}, {plants!r})"
        program = f"{source}\n\nimport sys\nsys.path.insert(0, {str(self.runner)!r})\n{call}\n"
        lines = run_counted(self.board, program, self.scratch / f"counts-{next(self.numbers)}").splitlines()
        size = REPEATS * len(PARTS)
        parts = [lines[at : at + size] for at in range(0, len(lines), size)]
        if len(parts) != 1 + len(plants):
            raise ValueError(f"{len(lines)} lines are not those of {1 + len(plants)} counts")
        return [read_counts("\n".join(part), CPU) for part in parts]


def measure(run: Path, scale: float, scratch: Path) -> Measured:
    """All pairs; a plant that passes the gate or an alarm without one breaks the promise."""
    starts = max(round(PAIRS * scale) // EACH, 1)
    runner, bundle = (scratch / pack(files, scratch) for files in (runner_files(), open_bundle(run / TARGET).files))
    board = emulated(f"qemu:{CPU}", places(os.environ))
    found = measure_pairs(Counter(board, runner, bundle, scratch, itertools.count()), starts)
    why = f"{found['missed']} missed, {found['false_alarms']} false alarms"
    failure = Failure(what="the gate is wrong", why=why, fix="see the row")
    return Measured(result=found, failure=failure if found["missed"] or found["false_alarms"] else None)


def measure_pairs(counter: Counter, starts: int) -> dict[str, Any]:
    """Counts and outcomes of so many starts after the first, each compared with the one before."""
    began = time.monotonic()
    plants = sized(counter)
    work = [plants[number % len(plants)] for number in range(EACH)]
    before = counter.start([PLAIN] * EACH)
    same, planted, more, whole = [], [], [], []
    for _ in range(starts):
        now = counter.start([PLAIN] * EACH + work)
        for old, new in zip(before[1:], now[1:], strict=False):
            same.append(outcome(old, new))
        for old, new in zip(before[1:], now[1 + EACH :], strict=False):
            planted.append(outcome(old, new))
            more.append(new.regions["preprocess"].total / old.regions["preprocess"].total - 1)
        whole.append(outcome(before[0], now[0])[0].value)
        before = now[: 1 + EACH]
    return {
        "starts": starts + 1,
        "pairs": len(planted),
        "gate": GATE,
        "cpu": CPU,
        "preprocess": before[0].regions["preprocess"].total,
        "plants": [{"kind": kind, "place": place, "repetitions": n} for kind, place, n in plants],
        "planted_share": [round(one, 5) for one in more],
        "aa_ratio": [one.value for one, _ in same],
        "whole_process_ratio": whole,
        "missed": sum(said == "pass" for _, said in planted),
        "false_alarms": sum(said != "pass" for _, said in same),
        "seconds_each": round((time.monotonic() - began) / (2 * len(planted)), 2),
    }


def sized(counter: Counter) -> list[Plant]:
    """Every plant, repeated as often as it must be to cost 2 %, rounded up."""
    places_of = list(itertools.product(KINDS, PLACES))
    probes: list[Plant] = [(kind, place, n) for kind, place in places_of for n in PROBES]
    _, plain, *found = [one.regions["preprocess"].total for one in counter.start([PLAIN, *probes])]
    plants: list[Plant] = []
    for (kind, place), few, many in zip(places_of, found[::2], found[1::2], strict=True):
        each = (many - few) / (PROBES[1] - PROBES[0])
        plants.append((kind, place, max(math.ceil(PROBES[0] + (plain * (1 + SLOWER) - few) / each), 1)))
    return plants


def outcome(old: Instructions, new: Instructions) -> tuple[Estimate, str]:
    """What `shrink compare --gate` says of the two."""
    (gate,) = parse([GATE])
    found = instructions(_side("old", old), _side("new", new), gate.limit)
    assert isinstance(found, Estimate)
    return found, judge(gate, found)


def _side(name: str, found: Instructions) -> Side:
    return Side(name, TARGET, 1, None, None, {part: region.total for part, region in found.regions.items()})
