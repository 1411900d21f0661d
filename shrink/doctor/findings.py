"""What a check of the doctor says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from shrink.errors import Problem

Level = Literal["ok", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "error")  # the worst last


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str  # its name, one word
    level: Level
    what: str  # what was found
    why: str = ""  # why that matters; empty if it is ok
    fix: str = ""  # what to do; empty if it is ok


def ok(check: str, what: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, "ok", what)


def of_problem(check: str, problem: Problem) -> Finding:
    """What an export would refuse, in the words of its refusal."""
    return Finding(check, "error", problem.what, problem.why, problem.fix)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of all; "ok" of none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


def graded(share: float, *, warning: float, error: float | None = None) -> Level:
    """The level of a share of images: each bound is the largest share that is still below that level."""
    if error is not None and share > error:
        return "error"
    return "warning" if share > warning else "ok"
