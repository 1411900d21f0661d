"""How far the answers of one form of a model are from those of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Step:
    """One form of the model against another, on the same images."""

    what: str  # such as "onnx-int8 file"
    against: str  # such as "simulated in PyTorch"
    error: float  # root mean square difference of the scores, over the deviation of the reference's
    worst: float  # largest difference of any score, over the largest score of the reference
    agreement: float  # share of images with the same best class
    most: float  # error up to which the step is as it should be

    @property
    def is_sound(self) -> bool:
        """Whether the step lost no more than such a step may; NaN is not sound."""
        return self.error <= self.most


def step(what: str, given: Floats, against: str, wanted: Floats, *, most: float) -> Step:
    """Compare scores, both (n, classes)."""
    difference = given.astype(np.float64) - wanted
    spread, largest = (max(float(v), 1e-12) for v in (wanted.std(), np.abs(wanted).max()))
    return Step(
        what=what,
        against=against,
        error=float(np.sqrt((difference**2).mean())) / spread,
        worst=float(np.abs(difference).max()) / largest,
        agreement=float((given.argmax(1) == wanted.argmax(1)).mean()),
        most=most,
    )
