"""The loop of one worker: a point, its result, the next point, until enough were tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from shrink.errors import Problem
from shrink.progress import Progress, Stage, duration
from shrink.search.front import describe, winner
from shrink.search.goal import Figures, Look
from shrink.search.points import Point
from shrink.search.result import Result
from shrink.search.study import GivenUpError, Study
from shrink.search.trials import Entry

Make = Callable[[Point, Look, Stage], Result]
"""Makes and judges a point; raises `GivenUpError` out of a look, or a Problem."""

Sketch = Callable[[Point, Stage], Figures]
"""Size and time of a point, neither fitted nor trained; raises a Problem."""

Tell = Callable[[str], None]
"""Shows a line."""


@dataclass(frozen=True, slots=True)
class Budget:
    """When to stop.

    Attributes:
        trials: of the whole study, by all workers: those that ended with a result or were given up.
        seconds: after which this worker begins no other; None: no limit.
        waits: whether it waits for what others still work on.
    """

    trials: int
    seconds: float | None = None
    waits: bool = True


def work(study: Study, make: Make, sketch: Sketch, budget: Budget, progress: Progress, tell: Tell) -> None:
    """Try points until the study has enough.

    Raises:
        Problem: why no point can be made, in any precision.
        KeyboardInterrupt: the trial that ran is written down as failed.
    """
    start = time.monotonic()
    while True:
        study.end_stale()
        entries = study.entries()  # one look: what runs in it is not finished in it
        count, others = finished(entries), _running(entries)
        if count >= budget.trials:
            return
        if budget.seconds is not None and time.monotonic() - start >= budget.seconds:
            tell(f"the time is up: {count} of {budget.trials} trials are done")
            return
        if count + len(others) >= budget.trials:
            if not budget.waits:
                return
            _wait(study, others, tell)
            continue
        while (point := study.to_sketch()) is not None:
            study.sketched(point, _sketched(point, sketch, progress))
        proposed = study.next()
        if proposed is None:
            tell("every point was tried")
            return
        attempt(study, *proposed, make, progress, tell)
        tell(_summary(study, proposed[0], budget, time.monotonic() - start))


def _sketched(point: Point, sketch: Sketch, progress: Progress) -> Figures:
    """No figures for a point that cannot be made; a trial of it says why."""
    with progress.stage(f"size and time of {msgspec.structs.replace(point, epochs=0)}") as stage:
        try:
            return sketch(point, stage)
        except Problem:
            return Figures()


def attempt(study: Study, number: int, point: Point, make: Make, progress: Progress, tell: Tell) -> None:
    """One trial, whatever becomes of it."""
    start = time.monotonic()

    def seconds() -> float:
        return round(time.monotonic() - start, 2)

    def look(what: str, best_case: Figures) -> None:
        nearest = min((study.head.goal.gap(e.result.figures) for e in study.entries() if e.result), default=None)
        if nearest is not None and study.head.goal.gap(best_case) > nearest:
            study.given_up(number, best_case, what, seconds())
            raise GivenUpError

    try:
        with progress.stage(f"trial {number}: {point}") as stage, study.alive(number):
            try:
                result = make(point, look, stage)
                study.done(number, result, seconds())
            except GivenUpError:
                pass
    except Problem as error:
        study.given_up(number, Figures(), f"{error.what}: {error.why}", seconds())
        entries = study.entries()
        if finished(entries) >= len(study.head.space.targets) and not any(entry.result for entry in entries):
            raise  # not even the whole model can be made, in no precision
    except BaseException as error:
        study.failed(number, f"interrupted: {type(error).__name__}")
        tell(f"  trial {number} was stopped; the same command goes on with the others")
        raise


def finished(entries: list[Entry]) -> int:
    """How many trials count: those that ended with a result or were given up."""
    return sum(entry.state in ("done", "given up") for entry in entries)


def _running(entries: list[Entry]) -> set[int]:
    return {entry.number for entry in entries if entry.state == "running"}


def _wait(study: Study, others: set[int], tell: Tell) -> None:
    """Until another worker has ended one of these trials, or fell silent in it."""
    tell(f"  waiting for {len(others)} trial{'s' if len(others) > 1 else ''} of other workers")
    while others <= _running(study.entries()):
        time.sleep(study.lease.beat / 4)
        study.end_stale()


def _summary(study: Study, number: int, budget: Budget, seconds: float) -> str:
    """What became of a trial, the best so far, and how long the rest may take."""
    entries = study.entries()
    mine = next(entry for entry in entries if entry.number == number)
    best, count = winner(study.head.goal, entries), finished(entries)
    took = [entry.seconds for entry in entries if entry.seconds is not None]
    ahead = max(0, budget.trials - count) * (sum(took) / max(len(took), 1)) / (len(_running(entries)) + 1)
    if budget.seconds is not None:
        ahead = min(ahead, max(0.0, budget.seconds - seconds))
    so_far = "none keeps the limits yet" if best is None else f"best: trial {best.number}, {describe(best)}"
    found = describe(mine) if mine.result else f"{mine.state}: {mine.why}"
    return f"  {found}\n  {count} of {budget.trials} trials, about {duration(ahead)} left; {so_far}"
