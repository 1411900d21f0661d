"""Scales with which every runtime adds codes alike, on every processor.

ONNX Runtime's kernel for 8-bit sums (MLAS, qladd.cpp) works in float32 on x86, with or without fused products, and with
integer factors of 22 bits on ARM; XNNPACK takes factors of 21 bits everywhere. They round ties differently, too. Where
one code is rounded to the other side, the network's rest is rounded anew: of EfficientNet-Lite0's first sum 1 of 1,000
codes differed, of its fourth 1 in 8. If the scales of both operands are p / D and q / D of that of the sum, with D odd,
no sum comes nearer to a tie than 1 / (2 D), which no kernel is off; a narrower scale by up to a hundredth reaches that.
Before a clamp to 0..6, `x + 3` has a single second operand, 127.5 codes: there some millionths are enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shrink.quantize.codes import HIGH, LOW, Affine

CODES = np.arange(LOW, HIGH + 1, dtype=np.int64)
FLOAT = 2.0**-23  # of the greatest term: what the roundings to float32 amount to
STEP = 1e-6  # between two scales that are tried where one operand is a number
TRIES = 200
NARROWEST = 0.99  # of a scale, where both operands vary
DENOMINATORS = np.arange(3, 2048, 2)  # beyond, ties come as near as factors of 21 bits are off
ARM_BITS, XNNPACK_BITS = 21, 20  # of the greater factor, at least


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
    for scale in (total.scale, *(_near(total.scale) if constant is not None else _odd(a, b, total.scale))):
        doubtful = _doubtful(a, b, Affine(scale, total.zero_point), seconds)
        if doubtful < fewest:
            best, fewest = scale, doubtful
        if not fewest:
            break
    return best


def _near(scale: float) -> Iterator[float]:
    """Narrower ones, so that the codes still carry out a clamp to the range."""
    return (scale * (1 - STEP * number) for number in range(1, TRIES))


def _odd(a: Affine, b: Affine, scale: float) -> list[float]:
    """Scales down to `NARROWEST`, the widest first, of which those of both operands are nearly fractions of one odd
    denominator: of all these, those that keep sums farthest from ties."""
    first, second = float(np.float32(a.scale)), float(np.float32(b.scale))
    least = np.ceil(first / scale * DENOMINATORS)
    counts = np.maximum(np.floor(first / scale / NARROWEST * DENOMINATORS) - least + 1, 0).astype(np.int64)
    denominators = np.repeat(DENOMINATORS, counts)
    within = np.arange(len(denominators)) - np.repeat(np.cumsum(counts) - counts, counts)
    tried = first * denominators / (np.repeat(least, counts) + within)
    numerators = second / tried * denominators
    margins = (0.5 - (HIGH - LOW) * np.abs(numerators - np.rint(numerators))) / denominators
    best = tried[np.argsort(-margins, kind="stable")[:PROMISING]]
    return sorted((float(one) for one in best), reverse=True)


PROMISING = 64  # of some thousands


def _doubtful(a: Affine, b: Affine, total: Affine, seconds: NDArray[np.int64]) -> int:
    """How many pairs of codes have sums that kernels may round apart."""
    first, second = _ratio(a, total), _ratio(b, total)
    left, right = (CODES - a.zero_point) * first, (seconds - b.zero_point) * second
    exact = left[:, None] + (right + total.zero_point)[None, :]
    tie = np.abs(exact - np.floor(exact) - 0.5)
    in_float = FLOAT * len(CODES) * max(1.0, first + second)
    near = tie < in_float + len(CODES) * 2.0 ** -_shift(first, second, XNNPACK_BITS)
    firsts, others = np.nonzero(near & (exact > LOW - 1) & (exact < HIGH + 1))
    wanted = np.clip(np.rint(exact[firsts, others]), LOW, HIGH).astype(np.int64)
    apart = tie[firsts, others] < in_float
    for kernel in (on_arm, in_xnnpack):
        apart |= kernel(CODES[firsts], seconds[others], a, b, total) != wanted
    return int(np.count_nonzero(apart))


def on_arm(x: NDArray[np.int64], y: NDArray[np.int64], a: Affine, b: Affine, total: Affine) -> NDArray[np.int64]:
    """Codes LOW..HIGH of the sums of codes `x` and `y`, as ONNX Runtime's kernel for ARM finds them."""
    found, shift = _scaled_sum(x, y, a, b, total, ARM_BITS)
    return _codes((found - (found < 0) + (1 << (shift - 1))) >> shift, total)  # ties go away from zero


def in_xnnpack(x: NDArray[np.int64], y: NDArray[np.int64], a: Affine, b: Affine, total: Affine) -> NDArray[np.int64]:
    """The same as XNNPACK finds them."""
    found, shift = _scaled_sum(x, y, a, b, total, XNNPACK_BITS)
    return _codes((found + (1 << (shift - 1))) >> shift, total)  # ties go up


def _scaled_sum(
    x: NDArray[np.int64], y: NDArray[np.int64], a: Affine, b: Affine, total: Affine, bits: int
) -> tuple[NDArray[np.int64], int]:
    """The sums in units of 2^-shift of a code, and that shift."""
    first, second = _ratio(a, total), _ratio(b, total)
    shift = _shift(first, second, bits)
    factors = [round(ratio * 2.0**shift) for ratio in (first, second)]
    return (x - a.zero_point) * factors[0] + (y - b.zero_point) * factors[1], shift


def _codes(found: NDArray[np.int64], total: Affine) -> NDArray[np.int64]:
    clipped: NDArray[np.int64] = np.clip(found + total.zero_point, LOW, HIGH)
    return clipped


def _shift(first: float, second: float, bits: int) -> int:
    return bits - math.floor(math.log2(max(first, second)))


def _ratio(one: Affine, total: Affine) -> float:
    return float(np.float32(one.scale) / np.float32(total.scale))
