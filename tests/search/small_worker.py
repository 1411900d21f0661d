"""A worker of a search whose points cost nothing: a formula says what they are. Run in processes that are killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from shrink.progress import Quiet, Stage
from shrink.search.goal import Figures, Goal, Look
from shrink.search.points import Point, Space
from shrink.search.result import Clocked, File, Result, weight
from shrink.search.study import Lease, Study
from shrink.search.trials import Head
from shrink.search.work import Budget, work

MODELS = Path(__file__).with_name("search_models.py")
GOAL = Goal(max_drop=1.0, size_mb=0.6)
SPACE = Space(most_pruned=3.0, resolutions=tuple(range(8, 28)), targets=("a", "b", "c"), own=20)
HEAD = Head(model="m", data="d", recipe="r", goal=GOAL, space=SPACE)
LEASE = Lease(beat=0.05, stale=0.5)
IMAGES = 10_000


def result(point: Point) -> Result:
    """Smaller and faster by pruning and by resolution; both cost answers."""
    share = (point.resolution / SPACE.own) ** 2 / point.prune
    lost = round(60 * (point.prune - 1) + 25 * abs(point.resolution - SPACE.own))
    clocked = (Clocked(board="local", median_ms=2 * share, ratio=share),)
    file = File(
        target=point.targets, sha256="", size_bytes=round(1e6 / point.prune), size_ratio=1 / point.prune,
        clocked=clocked, images=IMAGES, lost=lost, won=0,
    )  # fmt: skip
    return Result(files=(file,), macs=round(1e6 * share), parameters=round(1e6 / point.prune))


def sketch(point: Point, stage: Stage) -> Figures:
    """What it weighs, without its answers."""
    return weight(result(point).files)


def main(place: str, log: str, trials: int, seconds: float) -> None:
    """Work on the study; every result is also appended to `log`, when `done` has returned.

    Args:
        seconds: that each point takes.
    """
    study = Study(place, HEAD, seed=0, lease=LEASE)
    finish = study.done

    def done(number: int, found: Result, took: float) -> None:
        finish(number, found, took)
        note(log, f"{number} {found.files[0].size_bytes} {found.files[0].lost}\n")

    study.done = done  # type: ignore[method-assign]

    def make(point: Point, look: Look, stage: Stage) -> Result:
        look("half way", Figures(size_mb=0.5 / point.prune))
        time.sleep(seconds)
        return result(point)

    work(study, make, sketch, Budget(trials), Quiet(), lambda line: None)


def note(log: str, line: str) -> None:
    """One write of the system: whole or not at all."""
    descriptor = os.open(Path(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)
