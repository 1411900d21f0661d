"""The least of a model that has to go for its size and time: answers suffer with all of it.

Training changes neither, and takes most of a trial. So size and time are found first, by sketches: files of what is
left, neither fitted nor trained, which nobody asks what is on an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from shrink.search.goal import Figures, Goal
from shrink.search.points import STEP, Point, Space
from shrink.search.trials import Entry

ANSWERS = "max_drop"  # the limit that pruning does not help to keep

OFF = 0.03  # share by which times of a sketch and of its trial differ: a point that would only just do may not

Sketched = Mapping[Point, Figures]
"""Size and time of points, untrained; without figures: it cannot be made."""


def to_sketch(goal: Goal, space: Space, entries: Sequence[Entry], sketched: Sketched) -> Point | None:
    """The point whose size and time are worth most to know; None: no other would tell where the limits lie.

    For each precision the whole model, then as little of it as is allowed; if one is too large or slow and the other is
    not, one between the two, until they are neighbours: as if size and time were powers of what is left, which they are
    between near points.
    """
    for targets in space.targets:
        known = _excesses(goal, space, targets, entries, sketched)
        over, within = _ends(known)
        wanted = 1.0
        if over is not None:
            wanted = space.most_pruned if within is None else _between(over, within, known)
        point = space.at(wanted, targets)
        if wanted not in known and point not in sketched:
            return point
    return None


def aims(goal: Goal, space: Space, entries: Sequence[Entry], sketched: Sketched) -> Iterator[Point]:
    """One point for each precision: the least pruned one that is small and fast enough, as far as is known.

    Where none is, as little of the model as is allowed: it comes nearest. Where the whole model is, the same: it is the
    other end of what can be had. Trained for as short as can be; then for longer, as long as it loses too much.
    """
    for targets in space.targets:
        over, within = _ends(_excesses(goal, space, targets, entries, sketched))
        aim = space.at(space.most_pruned if over is None or within is None else within, targets)
        yield aim
        if over is not None and within is not None:
            yield from _longer(goal, space, [entry for entry in entries if _is_at(entry, aim)])


def _excesses(
    goal: Goal, space: Space, targets: str, entries: Sequence[Entry], sketched: Sketched
) -> dict[float, float]:
    """Factor -> how far it is over the limits of size and time, at the model's own resolution; trials know best."""
    found = {point.prune: _excess(goal, figures, OFF) for point, figures in sketched.items()
             if point.targets == targets and figures.size_mb is not None}  # fmt: skip
    for entry in entries:
        if entry.result is not None and entry.point.resolution == space.own and entry.point.targets == targets:
            found[entry.point.prune] = _excess(goal, entry.result.figures)
    return found


def _excess(goal: Goal, figures: Figures, off: float = 0.0) -> float:
    """Logarithm of how many times the worst limit of size or time is exceeded; at most 0 where all are kept."""
    limits = [1 + gap for limit, gap in goal.gaps(figures).items() if limit != ANSWERS]
    return math.log(max(limits) * (1 + off)) if limits else 0.0


def _ends(known: Mapping[float, float]) -> tuple[float | None, float | None]:
    """The most pruned one that is over the limits, and the least pruned one beyond it that is not."""
    over = max((prune for prune, excess in known.items() if excess > 0), default=None)
    within = min((prune for prune in known if over is None or prune > over), default=None)
    return over, within


def _between(over: float, within: float, known: Mapping[float, float]) -> float:
    """A factor between the two, or `within` if they are neighbours."""
    last = round((within - over) / STEP) - 1
    if last < 1:
        return within
    share = known[over] / (known[over] - known[within])
    factor: float = over * (within / over) ** share
    steps = math.ceil(round((factor - over) / STEP, 6))
    return round(over + STEP * min(max(steps, 1), last), 2)


def _is_at(entry: Entry, aim: Point) -> bool:
    return entry.result is not None and msgspec.structs.replace(entry.point, epochs=aim.epochs) == aim


def _longer(goal: Goal, space: Space, tried: Sequence[Entry]) -> Iterator[Point]:
    """The same with the next number of epochs, where all that were tried lose too much."""
    losses = [goal.gaps(entry.result.figures)[ANSWERS] for entry in tried if entry.result is not None]
    if not losses or min(losses) <= 0:
        return
    longest = max(tried, key=lambda entry: entry.point.epochs).point
    more = [epochs for epochs in space.epochs if epochs > longest.epochs]
    if more:
        yield msgspec.structs.replace(longest, epochs=min(more))
