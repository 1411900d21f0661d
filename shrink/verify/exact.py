"""An exact test that a drop is below a limit, for a gate that must not pass a bad model too often.

Tango's interval holds its level on average over the rates of flips, and may miss it by half a point at some. Here the
chance is added up over all outcomes that speak as strongly against the limit, at the rate of flips where it is largest
within a confidence set, and what that set leaves out is added: R. Berger and D. Boos, P values maximized over a
confidence set for the nuisance parameter, Journal of the American Statistical Association 89, 1012-1016 (1994).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv, gammaln

LEFT_OUT = 1e-4  # chance that the true rate of won images is outside of the rates looked at
RATES = 101  # that are looked at
NEVER = 1e-12  # chance of outcomes that are not added up, which count as if they were against

Floats = NDArray[np.float64]


def surely_below(lost: int, won: int, n: int, limit: float) -> float:
    """p value of "the drop is `limit` or more": small when it is surely below.

    Args:
        lost, won: flips each way; lost + won <= n.
        n: images answered by both, > 0.
        limit: a rate, 0 <= limit < 1.
    """
    rates = _rates(won, n, limit)
    top = _most_won(float(rates[-1]), n)
    wins = np.arange(top + 1, dtype=np.float64)
    edge = _largest_lost(wins, n, limit, float(scores(np.array([lost]), np.array([won]), n, limit)[0]))
    chances = [_chance(wins, edge, n, limit, float(rate)) for rate in rates]
    return min(1.0, max(chances) + LEFT_OUT + NEVER)


def scores(lost: NDArray[np.number], won: NDArray[np.number], n: int, drop: float) -> Floats:
    """Standard errors by which the observed drops lie above a supposed one; Tango's score."""
    lost, won = lost.astype(np.float64), won.astype(np.float64)
    b = (2 * n - lost + won) * drop - lost - won
    c = -won * drop * (1 - drop)
    root = np.sqrt(np.maximum(0.0, b * b - 8 * n * c))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(b > 0, -2 * c / (b + root), (root - b) / (4 * n))
        spread = np.sqrt(np.maximum(0.0, n * (2 * rate + drop * (1 - drop))))
        gap = lost - won - n * drop
        found: Floats = np.where(spread > 0, gap / spread, np.where(gap == 0, 0.0, np.copysign(np.inf, gap)))
    return found


def _rates(won: int, n: int, limit: float) -> Floats:
    """Rates of won images that are not ruled out: Clopper and Pearson's interval."""
    low = float(betaincinv(won, n - won + 1, LEFT_OUT / 2)) if won else 0.0
    high = float(betaincinv(won + 1, n - won, 1 - LEFT_OUT / 2)) if won < n else 1.0
    most = (1 - limit) / 2
    return np.linspace(min(low, most), min(high, most), RATES)


def _most_won(rate: float, n: int) -> int:
    """Won images that are exceeded with a chance of `NEVER` at most, by Bernstein's bound."""
    log = -np.log(NEVER)
    return min(n, int(np.ceil(n * rate + log / 3 + np.sqrt(log**2 / 9 + 2 * log * n * rate * (1 - rate)))))


def _largest_lost(wins: Floats, n: int, limit: float, score: float) -> Floats:
    """For every number of won images the largest of lost ones whose score is not above; -1: none. The score rises."""
    low, high = np.full(len(wins), -1.0), n - wins
    slack = score + 1e-9 * (1 + abs(score))
    while (high > low).any():
        middle = np.ceil((low + high) / 2)
        fits = scores(middle, wins, n, limit) <= slack
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low


def _chance(wins: Floats, edge: Floats, n: int, limit: float, rate: float) -> float:
    """Of an outcome at or below the edge, with that rate of won images and a drop of `limit`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log = gammaln(n + 1) - gammaln(wins + 1) - gammaln(n - wins + 1)
        log = log + np.where(wins > 0, wins * np.log(rate), 0.0) + (n - wins) * np.log1p(-rate)
    share = min(1.0, (limit + rate) / (1 - rate))
    below = np.where(edge >= 0, bdtr(np.maximum(edge, 0), (n - wins).astype(int), share), 0.0)
    return float((np.exp(log) * below).sum())
