"""What paired answers say about the cost of a smaller model, and how surely.

The float model and the candidate answer the same images, so only the images where exactly one of
the two is right carry information: `lost` (right in float, wrong now) and `won` (the reverse). The
drop is (lost - won) / n, a rate: 0.01 is one point of top-1.
"""

from __future__ import annotations

import math
from typing import Literal

from scipy.optimize import brentq
from scipy.special import bdtr, betaincinv, ndtri

Verdict = Literal["pass", "fail", "not enough images"]

MOST_IMAGES = 10_000_000
"""`images_needed` says no more than this: the drop is then too near the limit to be told from it."""

_DECISION = 0.90  # two-sided, so that each end is a one-sided 95 % bound
_NUDGE = 1e-12  # steps off the observed drop, where the variance may be zero


def mcnemar_exact(lost: int, won: int) -> float:
    """Two-sided p value of "a flip is as likely to be lost as won": exact, at any count."""
    return min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5)))


def paired_interval(lost: int, won: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the drop (lost - won) / n: Tango's score interval.

    T. Tango, Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design, Statistics in Medicine 17, 891-908 (1998). Unlike Wald's it has a width
    when no answer flipped, and never leaves -1..1.

    Args:
        lost, won: flips each way; lost + won <= n.
        n: images answered by both models, > 0.
        confidence: two-sided, 0 < confidence < 1.
    """
    if min(lost, won) < 0 or n <= 0 or lost + won > n:
        raise ValueError(f"{lost} lost and {won} won of {n} images is not a count of flips")
    z = float(ndtri((1 + confidence) / 2))
    return -_upper(won, lost, n, z), _upper(lost, won, n, z)


def proportion_interval(count: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a rate: Clopper and Pearson's, which never covers less often than it says.

    C. Clopper, E. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 26, 404-413 (1934).

    Args:
        count: 0..n.
        n: > 0.
    """
    if not 0 <= count <= n or n <= 0:
        raise ValueError(f"{count} of {n} is not a count")
    tail = (1 - confidence) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    return low, float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0


def decide(lost: int, won: int, n: int, *, max_drop: float) -> Verdict:
    """Pass when the drop is surely at most `max_drop` (a rate), fail when it is surely more.

    Surely: by a one-sided 95 % bound, so a model whose true drop equals the limit passes about one
    time in twenty at most.
    """
    low, high = paired_interval(lost, won, n, confidence=_DECISION)
    if high <= max_drop:
        return "pass"
    return "fail" if low > max_drop else "not enough images"


def images_needed(lost: int, won: int, n: int, max_drop: float) -> int | None:
    """About how many further images it takes to decide, if the observed rates of flips stay.

    Rounded up to two significant digits and at most `MOST_IMAGES`; None when `decide` has an answer.
    """
    if decide(lost, won, n, max_drop=max_drop) != "not enough images":
        return None
    z = float(ndtri((1 + _DECISION) / 2))
    score = abs(_score(lost, won, n, max_drop))
    if score <= z * math.sqrt(n / (n + MOST_IMAGES)):
        return MOST_IMAGES
    # at fixed rates the score grows with the square root of n, so this is an equation, not a guess
    return _two_digits_up(max(1.0, n * ((z / score) ** 2 - 1)))


def _upper(lost: int, won: int, n: int, z: float) -> float:
    """The largest drop whose score is not below -z."""
    observed = (lost - won) / n
    if observed == 1:
        return 1.0

    def above(drop: float) -> float:
        return lost - won - n * drop + z * _spread(lost, won, n, drop)

    return float(brentq(above, observed + _NUDGE, 1.0))


def _score(lost: int, won: int, n: int, drop: float) -> float:
    """How many standard errors the observed drop lies above a supposed one."""
    gap = lost - won - n * drop
    spread = _spread(lost, won, n, drop)
    return gap / spread if spread else math.copysign(math.inf, gap) if gap else 0.0


def _spread(lost: int, won: int, n: int, drop: float) -> float:
    """Standard error of lost - won if the true drop were `drop`, with the likeliest rates under it."""
    a = 2 * n
    b = (2 * n - lost + won) * drop - lost - won
    c = -won * drop * (1 - drop)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    won_rate = -2 * c / (b + root) if b > 0 else (root - b) / (2 * a)  # the form that cancels no digits
    return math.sqrt(max(0.0, n * (2 * won_rate + drop * (1 - drop))))


def _two_digits_up(count: float) -> int:
    step = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return math.ceil(count / step) * step
