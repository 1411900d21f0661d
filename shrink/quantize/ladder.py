"""The ladder of post-training quantization: a rung is kept only if it brings the scores closer to float.

The error of the scores on images that set no range decides. Nothing here needs a label: the float graph is
the reference. Between ways that are as good, a file goes the way of the others: two files of one model that round
alike answer alike, and two that do not differ in one answer of a hundred.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from shrink.quantize.rungs import Maker
from shrink.quantize.state import State, Tools

CLEARLY = 0.8  # a slower way must bring the error below this share of the fastest one's
NOTED = 0.97  # and one of the same speed that takes more bytes below this
NEARLY = 1.1  # errors to this factor are equal: from processor to processor that of the demo CNN changed by 7 %


@dataclass(frozen=True, slots=True)
class Rung:
    """What was tried, and what it brought.

    Attributes:
        what: in words.
        error: of the scores, root mean square over their standard deviation.
        kept: whether it was.
        why: it was or was not, where the smallest error is not the reason.
    """

    what: str
    error: float
    kept: bool
    why: str = ""


def climb(
    starts: Mapping[str, State],
    rungs: Iterable[Maker],
    tools: Tools,
    *,
    like: Collection[str] | None = None,
    larger: Collection[str] = (),
) -> tuple[State, list[Rung]]:
    """The best state, and every rung that was tried, in order.

    Args:
        starts: the ways to begin, fastest first: a slower one must be clearly closer.
        rungs: makers of proposals, each from the best state so far.
        like: what another file of the model kept: it is kept here, too, and nothing else, unless that is clearly
            farther from float.
        larger: starts that are as fast as the first, and only take more bytes.
    """
    errors = {name: tools.error(state) for name, state in starts.items()}
    fastest = next(iter(errors))
    shares = {name: NOTED if name in larger else CLEARLY for name in errors} | {fastest: 1.0}
    best = min(errors, key=lambda name: errors[name] / shares[name])
    state, least = starts[best], errors[best]
    whys = {name: f"{'larger' if name in larger else 'slower'}, and not clearly closer" for name in errors}
    taken = [Rung(n, e, n == best, whys[n] if e < least else "") for n, e in errors.items()]
    for rung in rungs:
        tried = [_Way(what, proposed, tools.error(proposed)) for what, proposed in rung(state, tools)]
        ways = [_Way("", state, least), *tried]
        closest = min(ways, key=lambda way: way.error)  # the first of equals: where we are
        won = closest if like is None else _as_the_other(ways, closest, like)
        taken += [Rung(way.what, way.error, way is won, _why(way, won, closest)) for way in tried]
        state, least = won.state, won.error
    return state, taken


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """One that could be gone from a rung; staying has no words."""

    what: str
    state: State
    error: float


def _as_the_other(ways: list[_Way], closest: _Way, like: Collection[str]) -> _Way:
    same = next((way for way in ways if way.what in like), ways[0])
    return same if same.error <= NEARLY * closest.error else closest


def _why(way: _Way, won: _Way, closest: _Way) -> str:
    if won is closest or way not in (won, closest):
        return ""
    return "hardly farther, and the files answer alike" if way is won else "hardly closer, and the files answer alike"
