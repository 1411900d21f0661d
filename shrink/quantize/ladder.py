"""The ladder of post-training quantization: a rung is kept only if it brings the scores closer to float.

The error of the scores on images that set no range decides. Nothing here needs a label: the float graph is
the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from shrink.quantize.rungs import Proposals
from shrink.quantize.state import State, Tools

CLEARLY = 0.8  # a slower way must bring the error below this share of the fastest one's


@dataclass(frozen=True, slots=True)
class Rung:
    """What was tried, and what it brought.

    Attributes:
        what: in words.
        error: of the scores, root mean square over their standard deviation.
        kept: whether it was.
        why: it was not, where a smaller error is not the reason.
    """

    what: str
    error: float
    kept: bool
    why: str = ""


def climb(
    starts: Mapping[str, State], rungs: Iterable[Callable[[State, Tools], Proposals]], tools: Tools
) -> tuple[State, list[Rung]]:
    """The best state, and every rung that was tried, in order.

    Args:
        starts: the ways to begin, fastest first: a slower one must be clearly closer.
        rungs: makers of proposals, each from the best state so far.
    """
    errors = {name: tools.error(state) for name, state in starts.items()}
    fastest = next(iter(errors))
    best = min(errors, key=lambda name: errors[name] * (CLEARLY if name == fastest else 1.0))
    state, least = starts[best], errors[best]
    slower = "slower, and not clearly closer"
    taken = [Rung(n, e, n == best, slower if e < least else "") for n, e in errors.items()]
    for rung in rungs:
        tried = [(what, proposed, tools.error(proposed)) for what, proposed in rung(state, tools)]
        won = min(tried, key=lambda one: one[2], default=None)
        for what, proposed, error in tried:
            kept = won is not None and proposed is won[1] and error < least
            taken.append(Rung(what, error, kept))
        if won is not None and won[2] < least:
            state, least = won[1:]
    return state, taken
