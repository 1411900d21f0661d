"""Judges an artefact by its answers: is it an answer at all, and what did it cost?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from device_runner.manifest import Accuracy
from shrink.errors import ArtifactError, DataError
from shrink.verify.statistics import Verdict, decide, images_needed, mcnemar_exact, paired_interval

Classes = npt.NDArray[np.integer[Any]]

COLLAPSED = 0.995  # share of images that get one and the same answer
SPREAD = 0.05  # share of images to which the float model gives another answer
FEWEST_OTHERS = 5  # images; fewer could be honest flips on a small set


def judge(labels: Classes, reference: Classes, candidate: Classes, *, max_drop: float) -> Accuracy:
    """Compare a candidate with the float model on the same images.

    Args:
        labels: true classes, shape (n,).
        reference: classes answered by the float model, shape (n,).
        candidate: classes answered by the artefact, shape (n,).
        max_drop: allowed drop of top-1 as a rate: 0.01 is one point.

    Raises:
        DataError: there is no image to judge by.
    """
    n = len(labels)
    assert labels.shape == reference.shape == candidate.shape == (n,)
    if n == 0:
        raise DataError(
            "there is no image to judge the artefact by",
            "the drop of accuracy is measured on labelled images that calibration did not use",
            "give data with evaluation images",
        )
    right_before, right_now = reference == labels, candidate == labels
    lost = int(np.count_nonzero(right_before & ~right_now))
    won = int(np.count_nonzero(~right_before & right_now))
    low, high = paired_interval(lost, won, n)
    return Accuracy(
        images=n,
        top1_float=float(right_before.mean()),
        top1=float(right_now.mean()),
        drop=(lost - won) / n,
        drop_low=low,
        drop_high=high,
        agreement=float((reference == candidate).mean()),
        flips_lost=lost,
        flips_won=won,
        p_value=mcnemar_exact(lost, won),
        verdict=decide(lost, won, n, max_drop=max_drop),
        max_drop=max_drop,
        images_needed=images_needed(lost, won, n, max_drop),
    )


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a whole export: the worst of its artefacts, and a failure is worse than a doubt."""
    given = set(verdicts)
    if "fail" in given:
        return "fail"
    return "not enough images" if "not enough images" in given else "pass"


def check_answers(name: str, outputs: npt.NDArray[np.float32], reference: Classes) -> None:
    """Refuse an artefact whose answers are nonsense, whatever its accuracy may be.

    Args:
        name: what to call the artefact in the error, such as its target.
        outputs: scores, shape (n, classes).
        reference: classes answered by the float model for the same images, shape (n,).

    Raises:
        ArtifactError: NaN or infinity, one answer for all images, or one class for nearly all of
            them where the float model names several.
    """
    assert outputs.ndim == 2 and len(outputs) == len(reference)
    _check_finite(name, outputs)
    _check_varied(name, outputs)
    _check_spread(name, outputs.argmax(axis=1), reference)


def _check_finite(name: str, outputs: npt.NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if bad.size:
        raise ArtifactError(
            f"{name} answers NaN or infinity for {bad.size} of {len(outputs)} images, the first being number {bad[0]}",
            "a scale in the file is zero, infinite or far too small, or an op overflows",
            "check the weights for NaN and calibrate with more, typical images",
        )


def _check_varied(name: str, outputs: npt.NDArray[np.float32]) -> None:
    if len(outputs) > 1 and (outputs == outputs[0]).all():
        raise ArtifactError(
            f"{name} gives the very same scores for all {len(outputs)} images",
            "its answer does not depend on the image: a range was calibrated to nothing, or the input is lost",
            "calibrate with more, typical images, and check that float export of the same model answers",
        )


def _check_spread(name: str, candidate: Classes, reference: Classes) -> None:
    if not len(candidate):
        return
    answers, counts = np.unique(candidate, return_counts=True)
    favourite, share = answers[counts.argmax()], counts.max() / len(candidate)
    others = int(np.count_nonzero(reference != favourite))
    if share > COLLAPSED and others >= max(FEWEST_OTHERS, math.ceil(SPREAD * len(reference))):
        raise ArtifactError(
            f"class collapse: {name} answers class {favourite} for {share:.1%} of the images",
            f"the float model gives another class for {others} of {len(reference)}",
            "calibrate with images of all classes, or quantize with dynamic activation ranges",
        )
