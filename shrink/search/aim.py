"""The least of a model that has to go for its size and time, as trials found them: answers suffer with all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from shrink.search.goal import Goal
from shrink.search.points import STEP, Point, Space
from shrink.search.trials import Entry

ANSWERS = "max_drop"  # the limit that pruning does not help to keep


def aims(goal: Goal, space: Space, entries: Sequence[Entry]) -> Iterator[Point]:
    """One point for each precision, between the most pruned one that is too large or slow and the least that is not.

    Where in between: as if size and time were powers of what is left, which they are between near points. Nothing where
    no two such points are known, or none lies between them.
    """
    for targets in space.targets:
        known = {
            entry.point.prune: _excess(goal, entry)
            for entry in entries
            if entry.result is not None and entry.point == space.at(entry.point.prune, targets)
        }
        over = max((prune for prune, excess in known.items() if excess > 0), default=None)
        within = min((prune for prune, excess in known.items() if excess <= 0), default=None)
        if over is None or within is None or within - over < 1.5 * STEP:
            continue
        share = known[over] / (known[over] - known[within])
        factor = over * (within / over) ** share
        steps = math.ceil(round((factor - over) / STEP, 6))
        last = round((within - over) / STEP) - 1
        yield space.at(round(over + STEP * min(max(steps, 1), last), 2), targets)


def _excess(goal: Goal, entry: Entry) -> float:
    """Logarithm of how many times the worst limit of size or time is exceeded; at most 0 where all are kept."""
    assert entry.result is not None
    gaps = goal.gaps(entry.result.figures)
    return math.log(max((1 + gap for limit, gap in gaps.items() if limit != ANSWERS), default=1.0))
