"""The arithmetic of 8-bit codes: real = (code - zero_point) * scale. Jacob et al. 2018, section 2.1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shrink.quantize.ranges import Range

LOW, HIGH = -128, 127
WEIGHT_LIMIT = 127  # symmetric weights never use -128: kernels may add two products in 16 bits
SMALLEST_SCALE = 2.0**-23
"""Floor of every scale: a dead channel with scale 0 is refused by old runtimes and divides by zero."""


@dataclass(frozen=True, slots=True)
class Affine:
    """Scale and zero point of one tensor of int8 codes."""

    scale: float  # > 0
    zero_point: int  # -128..127


def affine(found: Range) -> Affine:
    """The codes that cover a range and hold 0 exactly, so that padding and ReLU stay exact."""
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    scale = max((high - low) / (HIGH - LOW), SMALLEST_SCALE)
    zero_point = round(LOW - low / scale)
    return Affine(scale, min(max(zero_point, LOW), HIGH))


def weight_scales(weight: Tensor) -> Tensor:
    """Symmetric scale per output channel; weight (O, ...) -> (O,) float32."""
    largest = weight.detach().abs().flatten(1).amax(1)
    return (largest / WEIGHT_LIMIT).clamp_min(SMALLEST_SCALE).to(torch.float32)


def nearest_codes(weight: Tensor, scales: Tensor) -> Tensor:
    """Each weight's nearest symmetric code, as floats; a scale is for all behind its place in the first axes."""
    steps = scales.reshape(*scales.shape, *[1] * (weight.dim() - scales.dim()))
    return (weight / steps).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
