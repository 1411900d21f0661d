"""Would the model answer better if images were prepared in another way?

A model is surest of the right answer when images are prepared as in training. So a few labelled images are
shown to it as configured and in every other way that people get wrong: channels swapped, axes or planes mixed
up, upside down, negative, another normalization. With the trained weights of seven networks (CIFAR-10,
Fashion-MNIST, ImageNet), the right way had both the most right answers and the highest probability of the
right class, by 3 standard errors or more over every other way, at 128 to 256 images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runner.manifest import Preprocess
from shrink.doctor.findings import Finding, ok

Floats = NDArray[np.float32]
Change = Callable[[Floats], Floats]

SEEN, SURE = 3.0, 4.0  # standard errors of the mean gain: in log probability with labels, in confidence without
CLEAR_GAIN = 0.03  # of right answers, above which it is an error
TEMPERATURES = np.geomspace(0.05, 500, 41)
"""Scores are divided by the one that suits them best: a way wins by its answers, not by how loud they are."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to prepare images."""

    words: str
    fix: str
    change: Change | None = None  # of images (b, C, H, W) in 0..1
    norm: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # mean and std; None: as configured

    def prepare(self, images: Floats, mean: Sequence[float], std: Sequence[float]) -> Floats:
        """Images (b, C, H, W) in 0..1 as the model would get them."""
        changed = images if self.change is None else self.change(images)
        mean, std = self.norm or (mean, std)
        shape = (-1, 1, 1)
        result: Floats = (changed - np.array(mean, np.float32).reshape(shape)) / np.array(std, np.float32).reshape(
            shape
        )
        return np.ascontiguousarray(result)


def _swapped(images: Floats) -> Floats:
    return images[:, ::-1]


def _turned(images: Floats) -> Floats:
    return images.transpose(0, 1, 3, 2)


def _upside_down(images: Floats) -> Floats:
    return images[:, :, ::-1]


def _negative(images: Floats) -> Floats:
    return 1 - images


def _planes(images: Floats) -> Floats:
    """As if the pixels had been stored plane by plane and read as if they were interleaved."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(images.shape)


AS_IS = Way("as configured", "")
LAYOUTS = (
    Way("with height and width exchanged", "exchange the axes of the arrays: they hold (W, H), not (H, W)", _turned),
    Way("upside down", "turn the images, or keep their EXIF orientation with exif = true", _upside_down),
    Way("as negatives", "invert the images: dark and light are the other way round than in training", _negative),
)
COLOUR = (
    Way("with red and blue exchanged", 'write color = "BGR" (or "RGB") in [preprocess] of the recipe, or swap them '
        "in the images: OpenCV reads BGR", _swapped),
    Way("read plane by plane", "save the arrays as (n, H, W, 3): the planes of (n, 3, H, W) were read as if "
        "interleaved", _planes),
)  # fmt: skip
NORMS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0.5": ((0.5,), (0.5,)),
    "MNIST's": ((0.1307,), (0.3081,)),
    "pixels of 0..1": ((0.0,), (1.0,)),
    "pixels of 0..255": ((0.0,), (1 / 255,)),
}
"""Normalizations in use; one number stands for every channel."""


def ways(preprocess: Preprocess) -> Iterator[Way]:
    """All ways but the configured one that make sense for its channels."""
    channels = len(preprocess.mean)
    yield from (way for way in LAYOUTS if way.change is not _turned or _square(preprocess))
    if channels == 3:
        yield from COLOUR
    for name, (mean, std) in NORMS.items():
        if len(mean) not in (1, channels):
            continue
        full = mean * (channels // len(mean)), std * (channels // len(std))
        if np.allclose(full, (preprocess.mean, preprocess.std), rtol=0.02, atol=1e-3):
            continue
        numbers = ", ".join(f"{key} = {[round(v, 5) for v in values]}" for key, values in zip(("mean", "std"), full))  # noqa: B905
        yield Way(f"normalized otherwise ({name})", f"write {numbers} in [preprocess] of the recipe", None, full)


def _square(preprocess: Preprocess) -> bool:
    height, width = preprocess.crop or preprocess.size
    return height == width


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the model says to n images."""

    right: NDArray[np.bool_]  # (n,)
    log_probability: NDArray[np.float64]  # (n,) of the true class
    classes: NDArray[np.int64]  # (n,)


def answers(scores: Floats, labels: NDArray[np.int64]) -> Answers:
    """Of scores (n, classes), at the temperature that suits them best."""
    rows = np.arange(len(labels))
    best = max((_log_softmax(scores / t)[rows, labels] for t in TEMPERATURES), key=lambda found: float(found.mean()))
    classes = scores.argmax(1)
    return Answers(classes == labels, best, classes)


def _log_softmax(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


def judge(own: Answers, others: Sequence[tuple[Way, Answers]]) -> Finding:
    """Whether another way is better than the configured one, beyond chance.

    Args:
        own: as configured.
        others: every other way and its answers to the same images.
    """
    n, right = len(own.right), int(own.right.sum())
    better = [(way, found) for way, found in others if gain(own, found) >= SEEN and found.right.sum() > right]
    if not better:
        return ok("preprocessing", f"none of {len(others)} other ways to prepare images suits the model better")
    way, found = max(better, key=lambda pair: float(pair[1].log_probability.mean()))
    sure = found.right.sum() - right >= CLEAR_GAIN * n
    what = f"the model is right for {right} of {n} images as configured, and for {found.right.sum()} {way.words}"
    why = "images must be prepared as in training; ranges and accuracy would be those of another model"
    return Finding("preprocessing", "error" if sure else "warning", what, why, way.fix)


def surer(own: Floats, others: Sequence[tuple[Way, Floats]]) -> Finding:
    """Without labels: whether the model is surer of its answers in another way; scores are (n, classes)."""
    confidence = _log_softmax(own).max(1)
    found = [(way, _errors(_log_softmax(scores).max(1) - confidence)) for way, scores in others]
    if not found or max(errors for _, errors in found) < SURE:
        return ok("channels", f"the model is as sure of the calibration images in none of {len(found)} other layouts")
    way, errors = max(found, key=lambda pair: pair[1])
    what = f"the model is surer of the calibration images {way.words}, by {errors:.0f} standard errors"
    why = "they seem to be prepared in another way than the evaluation images"
    return Finding("channels", "error", what, why, way.fix)


def gain(own: Answers, other: Answers) -> float:
    """Mean gain in log probability of the true class, in its standard errors."""
    return _errors(other.log_probability - own.log_probability)


def _errors(difference: NDArray[np.float64]) -> float:
    """The mean in its standard errors."""
    error = float(difference.std() / np.sqrt(len(difference)))
    return float(difference.mean()) / error if error > 0 else 0.0
