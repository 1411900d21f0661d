"""The least of a model that has to go for its size and time, as trials found them: answers suffer with all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from shrink.search.goal import Goal
from shrink.search.points import STEP, Point, Space
from shrink.search.trials import Entry

ANSWERS = "max_drop"  # the limit that pruning does not help to keep


def aims(goal: Goal, space: Space, entries: Sequence[Entry]) -> Iterator[Point]:
    """One point for each precision, between the most pruned one that is too large or slow and the least that is not.

    Where in between: as if size and time were powers of what is left, which they are between near points. Training
    changes neither, so it is the shortest until none lies between them; then the least pruned one that is small and
    fast enough is trained for longer, as long as it loses too much. Nothing where no two such points are known.
    """
    for targets in space.targets:
        mine = [entry for entry in entries if _counts(entry, space, targets)]
        known = {entry.point.prune: _excess(goal, entry) for entry in mine}
        over = max((prune for prune, excess in known.items() if excess > 0), default=None)
        within = min((prune for prune, excess in known.items() if excess <= 0), default=None)
        if over is None or within is None:
            continue
        if within - over >= 1.5 * STEP:
            yield space.at(_between(over, within, known), targets)
        else:
            yield from _longer(goal, space, [entry for entry in mine if entry.point.prune == within])


def _counts(entry: Entry, space: Space, targets: str) -> bool:
    return entry.result is not None and entry.point.resolution == space.own and entry.point.targets == targets


def _between(over: float, within: float, known: Mapping[float, float]) -> float:
    share = known[over] / (known[over] - known[within])
    factor: float = over * (within / over) ** share
    steps = math.ceil(round((factor - over) / STEP, 6))
    last = round((within - over) / STEP) - 1
    return round(over + STEP * min(max(steps, 1), last), 2)


def _longer(goal: Goal, space: Space, tried: Sequence[Entry]) -> Iterator[Point]:
    """The same with the next number of epochs, where all that were tried lose too much."""
    losses = [goal.gaps(entry.result.figures)[ANSWERS] for entry in tried if entry.result is not None]
    longest = max(tried, key=lambda entry: entry.point.epochs).point
    more = [epochs for epochs in space.epochs if epochs > longest.epochs]
    if more and min(losses) > 0:
        yield msgspec.structs.replace(longest, epochs=min(more))


def _excess(goal: Goal, entry: Entry) -> float:
    """Logarithm of how many times the worst limit of size or time is exceeded; at most 0 where all are kept."""
    assert entry.result is not None
    gaps = goal.gaps(entry.result.figures)
    return math.log(max((1 + gap for limit, gap in gaps.items() if limit != ANSWERS), default=1.0))
