"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Loss = Literal["kl", "dist", "mse"]
Augmentation = Literal["crop", "flip", "color", "mix"]
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Settings:
    """One training."""

    epochs: int  # passes over the images, > 0
    loss: Loss = "kl"
    temperature: float = 2.0  # > 0; softens the classes of both
    match: float = 0.0  # weight of the relations between tokens, beside the scores
    labels: float = 0.0  # share of the loss that looks at labels, 0..1; the rest looks at the teacher
    balance: bool = False  # every class drawn equally often and worth as much
    augment: tuple[Augmentation, ...] = ("crop", "flip", "color", "mix")
    views: int = 4  # different epochs; later ones look at the same again, in another order
    batch: int = 64  # images per step, of all processes together
    accumulate: int = 1  # parts that a step is computed in
    rate: float = 3e-4  # of Adam at its highest
    warmup: float = 0.05  # share of the steps in which the rate rises
    precision: Precision = "no"  # of the arithmetic: 32 bits, or mixed with 16
    seed: int = 0
