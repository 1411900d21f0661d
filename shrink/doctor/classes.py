"""Which classes occur among the evaluation images, and whether their numbers are those of the model's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc

from shrink.data.images import Images
from shrink.doctor.findings import Finding, ok

UNLIKELY = 0.01  # that a class is missing by chance, or that so many answers are right by chance
UNEVEN = 10  # times as many images of one class as of the median one
SHOWN = 3  # classes named
OFFSETS = {1: "if every label is raised by 1", -1: "if every label is lowered by 1"}
"""Models of TensorFlow have a class 0, "background", before ImageNet's 1,000."""

Ints = NDArray[np.int64]


def coverage(images: Images, outputs: int) -> Iterator[Finding]:
    """Missing and uneven classes."""
    assert images.labels is not None  # of evaluation images
    counts = np.bincount(images.labels, minlength=outputs)
    missing, n = np.flatnonzero(counts == 0), len(images)
    words = f"{outputs - len(missing)} of {outputs} classes occur among {n} evaluation images"
    if not len(missing) or outputs * (1 - 1 / outputs) ** n > UNLIKELY:  # so few images cannot show all
        yield ok("classes", words)
    else:
        names = ", ".join(images.label_name(int(label)) for label in missing[:SHOWN])
        why = f"nothing is known of the others, such as {names}"
        yield Finding("classes", "warning", words, why, "add images of them, or say so where the accuracy is quoted")
    yield _balance(images, counts[counts > 0])


def _balance(images: Images, counts: NDArray[np.int64]) -> Finding:
    largest, median = int(counts.max()), float(np.median(counts))
    assert images.labels is not None
    name = images.label_name(int(np.bincount(images.labels).argmax()))
    words = f"the most frequent class, {name}, has {largest} evaluation images, the median class {median:g}"
    if largest < UNEVEN * median:
        return ok("balance", words)
    why = "top-1 and its drop are then nearly those of that class alone"
    return Finding("balance", "warning", words, why, "draw about as many of each, or as many as occur in use")


@dataclass(frozen=True, slots=True)
class Order:
    """Another numbering of the classes that explains the answers."""

    share: float  # of right answers with it
    words: str
    why: str
    fix: str

    def finding(self, right: int, n: int) -> Finding:
        """`right` of `n` answers are right with the numbering of the data."""
        what = f"the model is right for {right} of {n} evaluation images, and for {self.share:.0%} {self.words}"
        return Finding("numbering", "error", what, self.why, self.fix)


def other_order(labels: Ints, answers: Ints, images: Images, outputs: int) -> Order | None:
    """A numbering of the classes with which the answers are right at least twice as often, and not by chance.

    Args:
        labels, answers: true and answered classes of some images, (n,).
        images: for the names of the classes.
        outputs: scores per image.
    """
    right, n = int((labels == answers).sum()), len(labels)
    for offset, words in OFFSETS.items():
        better = int((labels + offset == answers).sum())
        if better > 2 * right and not _by_chance(better, n, outputs):
            why, fix = (
                "class i of the data is not output i of the model",
                "number the classes in a CSV as the model does",
            )
            return Order(better / n, words, why, fix)
    learn, test = slice(0, None, 2), slice(1, None, 2)
    names = {int(a): int(np.bincount(labels[learn][answers[learn] == a]).argmax()) for a in np.unique(answers[learn])}
    moved = [a for a, label in names.items() if a != label]
    told = np.array([names.get(int(a), int(a)) for a in answers[test]])
    better = int((labels[test] == told).sum())
    if not moved or better <= 2 * int((labels[test] == answers[test]).sum()) or _by_chance(better, len(told), outputs):
        return None
    common = max(moved, key=lambda a: int((answers == a).sum()))
    why = f"where it answers {images.label_name(common)}, the label is mostly {images.label_name(names[common])}"
    fix = "name the folders so that they sort as in training, or number the classes in a CSV as the model does"
    return Order(better / len(told), "with the classes in another order", why, fix)


def numbering(labels: Ints, answers: Ints, outputs: int) -> Finding:
    """Whether the model is right more often than chance."""
    right, n = int((labels == answers).sum()), len(labels)
    words = f"the model is right for {right} of {n} evaluation images"
    if outputs > 1 and _by_chance(right, n, outputs):
        why = "that is no more than chance"
        fix = "check that the checkpoint is the trained one, and that class number i of the data is output i"
        return Finding("numbering", "error", words, why, fix)
    return ok("numbering", words)


def _by_chance(right: int, n: int, outputs: int) -> bool:
    return bool(bdtrc(right - 1, n, 1 / outputs) > UNLIKELY) if right else True
