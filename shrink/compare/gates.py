"""What must hold, as it is written: `drop<=0.3`, `latency<=1.05x`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from shrink.errors import RequestError, nearest

Outcome = Literal["pass", "fail", "cannot tell"]

METRICS: Mapping[str, tuple[str, str]] = {
    "drop": ("", "points of top-1 from the old file to the new one, such as drop<=0.3"),
    "latency": ("x", "time of the new file over that of the old one, such as latency<=1.05x"),
    "size": ("x", "bytes of the new file over those of the old one, such as size<=1.0x"),
    "instructions": ("x", "instructions of the new file over those of the old one, such as instructions<=1.01x"),
}
"""Metric -> the unit of its limit, and what it is."""

LEVEL = 0.05
"""The chance at most that a file at the limit passes."""


@dataclass(frozen=True, slots=True)
class Gate:
    """At most that much."""

    metric: str  # a key of `METRICS`
    limit: float  # points for a drop, a ratio for the rest

    @property
    def text(self) -> str:
        """As it is written.

        >>> Gate("latency", 1.05).text, Gate("drop", 0.3).text
        ('latency<=1.05x', 'drop<=0.3')
        """
        return f"{self.metric}<={self.limit:g}{METRICS[self.metric][0]}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was found of one metric, in the unit of its gate."""

    value: float
    low: float  # one-sided 95 % bounds, or surer ones; equal to the value where it is exact
    high: float
    old: str  # the two figures behind it, in words
    new: str
    notes: tuple[str, ...] = ()


def parse(written: Iterable[str]) -> list[Gate]:
    """Read gates; one may hold several, with commas between.

    Raises:
        RequestError: an unknown metric, one given twice, or a limit that is not written as the metric's.
    """
    gates = [_parse(one.strip()) for text in written for one in text.split(",")]
    metrics = [gate.metric for gate in gates]
    if twice := [metric for metric in metrics if metrics.count(metric) > 1]:
        raise RequestError(f"there are two gates on {twice[0]}", "one of them decides", "give the stricter one")
    return gates


def _parse(text: str) -> Gate:
    found = re.fullmatch(r"([a-z]+)\s*(<=?)\s*([0-9]+(?:\.[0-9]+)?)(x?)", text)
    metric = (found[1] if found else re.split(r"[^a-z]", text)[0]) or "nothing"
    if metric not in METRICS:
        raise RequestError(f"there is no gate {metric!r}", f"{text!r} names it", nearest(metric, METRICS))
    unit, what = METRICS[metric]
    if found is None or found[2] != "<=" or found[4] != unit or not math.isfinite(float(found[3])):
        raise RequestError(f"the gate {text!r} cannot be read", f"it is METRIC<=LIMIT{unit}", f"write {what}")
    if metric == "drop" and float(found[3]) >= 100:
        raise RequestError(f"the gate {text!r} holds for every file", "a drop is below 100 points", f"write {what}")
    return Gate(metric, float(found[3]))


def judge(gate: Gate, found: Estimate) -> Outcome:
    """Pass when it is surely at most the limit, fail when it is surely more."""
    if found.high <= gate.limit:
        return "pass"
    return "fail" if found.low > gate.limit else "cannot tell"
