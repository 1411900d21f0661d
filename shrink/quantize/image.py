"""The codes of the image itself: 256 grey levels, normalized, and 256 codes to hold them.

A normalized pixel is (p / 255 - mean) / std for a grey level p, and a code must hold 0 exactly. With a
mean of 0.5 the levels lie halfway between the codes of their own range, and two of them share every
second code. A range a little wider is a little coarser and far closer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from shrink.quantize.codes import HIGH, LOW, affine
from shrink.quantize.ranges import Range

WIDER = torch.linspace(1.0, 1.05, 51, dtype=torch.float64).tolist()


def image_range(seen: Range, mean: Sequence[float], std: Sequence[float]) -> Range:
    """The range, up to 5 % wider than the one seen, whose codes are closest to the grey levels.

    Args:
        seen: of the normalized images.
        mean, std: of the normalization, per channel, of pixels in 0..1.
    """
    levels = torch.arange(256, dtype=torch.float64)[:, None] / 255
    values = (levels - torch.tensor(mean, dtype=torch.float64)) / torch.tensor(std, dtype=torch.float64)

    def error(found: Range) -> float:
        codes = affine(found)
        steps = (values / codes.scale).round() + codes.zero_point
        return float(((steps.clamp(LOW, HIGH) - codes.zero_point) * codes.scale - values).square().mean())

    return min((replace(seen, low=seen.low * w, high=seen.high * w) for w in WIDER), key=error)
