"""Scales with which ONNX Runtime adds codes alike on every processor.

Its kernel for 8-bit sums (MLAS, qladd.cpp) works in float32 on x86, with or without fused products, and with integer
factors of 22 bits on ARM; they round ties differently, too. Most of all `x + 3` before a clamp to 0..6 suffers: there 3
is 127.5 codes, so that x = 0, the commonest of all, is a tie: in the demo CNN 2 to 5 of 100 codes of such sums were one
apart. It is enough to narrow the scale of a sum by some millionths, so that no pair of codes comes near a tie.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shrink.quantize.codes import HIGH, LOW, Affine

CODES = np.arange(LOW, HIGH + 1, dtype=np.int64)
FLOAT = 2.0**-23  # of the greatest term: what the roundings to float32 amount to
STEP = 1e-6  # between two scales that are tried
TRIES = 200  # then the scale is 2e-4 less: at its far end the range by a twentieth of a code
BITS = 21  # of the greater factor, at least


@lru_cache(maxsize=4096)
def alike(a: Affine, b: Affine, total: Affine, constant: int | None = None) -> float:
    """A scale for a sum of codes, near its own, with which the fewest pairs can be rounded apart: nearly always none.

    Args:
        a, b: the codes of both operands.
        total: those of the sum.
        constant: the code of `b`, if it is a single number.
    """
    seconds = CODES if constant is None else np.array([constant], np.int64)
    best, fewest = total.scale, math.inf
    for number in range(TRIES):
        scale = total.scale * (1 - STEP * number)  # narrower: the codes still carry out a clamp to the range
        doubtful = _doubtful(a, b, Affine(scale, total.zero_point), seconds)
        if doubtful < fewest:
            best, fewest = scale, doubtful
        if not fewest:
            break
    return best


def _doubtful(a: Affine, b: Affine, total: Affine, seconds: NDArray[np.int64]) -> int:
    """How many pairs of codes have sums that x86 and ARM may round apart."""
    first, second = _ratio(a, total), _ratio(b, total)
    left, right = (CODES - a.zero_point) * first, (seconds - b.zero_point) * second
    exact = left[:, None] + (right + total.zero_point)[None, :]
    tie = np.abs(exact - np.floor(exact) - 0.5)
    in_float = FLOAT * len(CODES) * max(1.0, first + second)
    near = tie < in_float + len(CODES) * 2.0 ** -_shift(first, second)
    firsts, others = np.nonzero(near & (exact > LOW - 1) & (exact < HIGH + 1))
    on_arm = by_factors(CODES[firsts], seconds[others], a, b, total)
    wanted = np.clip(np.rint(exact[firsts, others]), LOW, HIGH).astype(np.int64)
    return int(np.count_nonzero((tie[firsts, others] < in_float) | (on_arm != wanted)))


def by_factors(x: NDArray[np.int64], y: NDArray[np.int64], a: Affine, b: Affine, total: Affine) -> NDArray[np.int64]:
    """Codes LOW..HIGH of the sums of codes `x` and `y`, as the kernel for ARM finds them."""
    first, second = _ratio(a, total), _ratio(b, total)
    shift = _shift(first, second)
    factors = [round(ratio * 2.0**shift) for ratio in (first, second)]
    found = (x - a.zero_point) * factors[0] + (y - b.zero_point) * factors[1]
    found = (found - (found < 0) + (1 << (shift - 1))) >> shift  # ties go away from zero
    clipped: NDArray[np.int64] = np.clip(found + total.zero_point, LOW, HIGH)
    return clipped


def _shift(first: float, second: float) -> int:
    return BITS - math.floor(math.log2(max(first, second)))


def _ratio(one: Affine, total: Affine) -> float:
    return float(np.float32(one.scale) / np.float32(total.scale))
