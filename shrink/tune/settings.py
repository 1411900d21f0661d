"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Loss = Literal["kl", "dist", "mse"]
Augmentation = Literal["crop", "flip", "color", "mix"]
Precision = Literal["no", "bf16", "fp16"]

AUGMENTED: tuple[Augmentation, ...] = ("crop", "flip", "color", "mix")
LIGHTLY: tuple[Augmentation, ...] = ("flip",)
PATIENT = 20  # passes, from which on a teacher's answers to images far from the real ones are worth learning


def augmentation(epochs: int, *, from_labels: bool) -> tuple[Augmentation, ...]:
    """What suits a training for which nothing is asked.

    A student that already answers nearly as its teacher does has nothing to overfit in a few passes, and would spend
    them on blended images that it never meets: of the demo CNN, pruned to half and taught 1, 3 and 10 passes of 11,000
    images, the loss on others stayed at 8.8e-4, 8.8e-4 and 8.6e-4 with all, and fell to 8.7e-4, 8.0e-4 and 6.7e-4 with
    mirrored images alone. Labels, and many passes, can be learnt by heart, which is what the rest is against (Beyer et
    al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022, blend for hundreds of epochs).

    Args:
        epochs: passes over the images.
        from_labels: all or part of the loss looks at labels.
    """
    return AUGMENTED if from_labels or epochs >= PATIENT else LIGHTLY


@dataclass(frozen=True, slots=True)
class Settings:
    """One training."""

    epochs: int  # passes over the images, > 0
    loss: Loss = "kl"
    temperature: float = 2.0  # > 0; softens the classes of both
    match: float = 0.0  # weight of the relations between tokens, beside the scores
    labels: float = 0.0  # share of the loss that looks at labels, 0..1; the rest looks at the teacher
    balance: bool = False  # every class drawn equally often and worth as much
    augment: tuple[Augmentation, ...] = AUGMENTED
    views: int = 4  # different epochs; later ones look at the same again, in another order
    batch: int = 64  # images per step, of all processes together
    accumulate: int = 1  # parts that a step is computed in
    rate: float = 3e-4  # of Adam at its highest
    warmup: float = 0.05  # share of the steps in which the rate rises
    precision: Precision = "no"  # of the arithmetic: 32 bits, or mixed with 16
    seed: int = 0
