"""One file of one run, reduced to what can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shrink.bench.latency import Ratio
from shrink.runs.pairing import Keyed


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Best classes for images that can be found again."""

    images: Keyed
    top1: NDArray[np.int64]  # (n,); -1 where the image could not be read, which is never right


@dataclass(frozen=True, slots=True)
class Speed:
    """Time of one inference."""

    median_ms: float
    low_ms: float  # 95 % interval of the median
    high_ms: float
    yardstick: str | None = None  # what it was timed in turns with; None: with nothing
    ratio: Ratio | None = None  # to the yardstick


@dataclass(frozen=True, slots=True)
class Side:
    """A file as one run knows it."""

    run: str
    target: str
    size_bytes: int
    answers: Answers | None  # None: the run kept none
    speed: Speed | None  # None: not timed, or emulated
    instructions: Mapping[str, int] | None = None  # part of the work -> count
    machine: Mapping[str, str] = field(default_factory=dict)  # what times and instructions depend on
    doubt: str = ""  # about its times


def unlike(old: Side, new: Side) -> list[str]:
    """In what the machines of the two differ, in words."""
    names = {**old.machine, **new.machine}
    return [
        f"{name}: {old.machine.get(name, 'unknown')} against {new.machine.get(name, 'unknown')}"
        for name in names
        if old.machine.get(name) != new.machine.get(name)
    ]
