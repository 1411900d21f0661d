"""Sets calibration images apart from evaluation images; no image is ever in both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shrink.data.images import Images, Parts
from shrink.data.sources import read
from shrink.errors import DataError

JUDGES = 5  # one of so many images judges, where a set has only one part and is trained on
FEWEST = 32  # below this the ranges of activations depend on which images were drawn


@dataclass(frozen=True, slots=True)
class Split:
    """What the ranges are taken from, and what the result is judged on."""

    calibration: Images  # labels are not needed and may be None
    evaluation: Images  # labelled
    notes: tuple[str, ...]  # for the report: what was passed over, left out or fewer than asked
    training: Images | None = None  # what may be trained on, if anything is; calibration images are among them


def load(data: str, *, calibrate: str | None = "256", seed: int = 0, train: bool = False) -> Split:
    """Open the data and set calibration images apart, and images to train on.

    Args:
        data: an image folder, a CSV, a .npz or a built-in name.
        calibrate: how many images to draw, balanced over the classes: from the train part, or, if there is
            only one part, out of it (at most half). Or a folder or CSV of its own, all of which is taken.
            None: none, for nothing is to be calibrated.
        seed: which images are drawn.
        train: whether to set images apart to train on: the train part, or, if there is only one part, four fifths
            of it; calibration images are then drawn from them.

    Raises:
        DataError: data that cannot be read, is not labelled, has too few images, or is calibration and
            evaluation data at once.
    """
    parts = read(data)
    if parts.evaluation.labels is None:
        why = "accuracy is measured against labels, and its images have none"
        fix = "sort them into one sub-folder per class, or give a CSV with the columns path,label"
        raise DataError(f"{data} is not labelled", why, fix)
    rng = np.random.default_rng(seed)
    if train:
        parts = _with_train(parts, rng)
    if calibrate is None:
        return Split(parts.evaluation.subset([]), parts.evaluation, parts.notes, parts.train if train else None)
    if not re.fullmatch(r"\s*-?[0-9]+\s*", calibrate):
        split = _of_its_own(calibrate, parts.evaluation)
    elif parts.train is not None:
        split = _from_train(parts.train, parts.evaluation, _count(calibrate), rng)
    else:
        split = _from_one(parts.evaluation, _count(calibrate), rng)
    _check_enough(split, calibrate)
    return Split(split.calibration, split.evaluation, parts.notes + split.notes, parts.train if train else None)


def _with_train(parts: Parts, rng: np.random.Generator) -> Parts:
    """The same images with a part to train on, none of which is evaluated."""
    if parts.train is None:
        images = parts.evaluation
        judging = draw(images.labels, len(images), -(-len(images) // JUDGES), rng)
        train = images.subset(np.setdiff1d(np.arange(len(images)), judging))
        parts = Parts(train, images.subset(judging), parts.notes)
    assert parts.train is not None
    shared = {index for index, _ in copies(parts.train, parts.evaluation)}
    if not shared:
        return parts
    note = f"{len(shared)} images to train on are also in the evaluation part and were left out"
    train = parts.train.subset([index for index in range(len(parts.train)) if index not in shared])
    return Parts(train, parts.evaluation, (*parts.notes, note))


def without(split: Split, known: frozenset[bytes]) -> Split:
    """The split with no evaluation image that a model was trained on.

    Args:
        known: beginnings, of one length, of the hashes of contents.

    Raises:
        DataError: none would be left.
    """
    if not known:
        return split
    images, size = split.evaluation, len(next(iter(known)))
    kept = [index for index in range(len(images)) if images.digest(index)[:size] not in known]
    if not kept:
        fix = "judge it with other images"
        raise DataError("no evaluation images are left", f"the model was trained on all of {images.name}", fix)
    if len(kept) == len(images):
        return split
    note = f"{len(images) - len(kept)} images that the model was trained on were left out of the evaluation"
    return replace(split, evaluation=images.subset(kept), notes=(*split.notes, note))


def draw(labels: NDArray[np.int64] | None, total: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose images at random, as many of each class as can be.

    Args:
        labels: class of each image, shape (total,); None draws without regard to classes.
        total: number of images to choose from.
        count: number of images to choose; all if there are fewer.
        rng: decides.

    Returns:
        indices in ascending order, shape (min(count, total),).
    """
    shuffled = rng.permutation(total)
    rank = np.zeros(total, dtype=np.int64) if labels is None else ranks(labels[shuffled])
    order = np.argsort(rank, kind="stable")  # every class's first image, then every class's second
    return np.sort(shuffled[order[:count]])


def ranks(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many images of the same class come before each: ranks([7, 7, 3, 7]) is [0, 1, 0, 2]."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    result = np.empty(len(labels), dtype=np.int64)
    result[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return result


def copies(images: Images, of: Images) -> Iterator[tuple[int, int]]:
    """Pairs (index in `images`, index in `of`) with the same content, one for each such image of `images`.

    Only the files whose size also occurs in `of` are read, one at a time.
    """
    if not len(of):
        return
    sizes = {of.size(index) for index in range(len(of))}
    candidates = [index for index in range(len(images)) if images.size(index) in sizes]
    digests = {of.digest(index): index for index in range(len(of))} if candidates else {}
    for index in candidates:
        match = digests.get(images.digest(index))
        if match is not None:
            yield index, match


def _from_train(train: Images, evaluation: Images, count: int, rng: np.random.Generator) -> Split:
    drawn = train.subset(draw(train.labels, len(train), count, rng))
    shared = {index for index, _ in copies(drawn, evaluation)}
    notes = _fewer(len(drawn), count)
    if shared:
        notes += (f"{len(shared)} images drawn for calibration are also in the evaluation part and were left out",)
        drawn = drawn.subset([index for index in range(len(drawn)) if index not in shared])
    return Split(drawn, evaluation, notes)


def _from_one(images: Images, count: int, rng: np.random.Generator) -> Split:
    chosen = draw(images.labels, len(images), min(count, len(images) // 2), rng)  # half stays to judge with
    calibration = images.subset(chosen)
    rest = images.subset(np.setdiff1d(np.arange(len(images)), chosen))
    shared = {index for index, _ in copies(rest, calibration)}
    notes = _fewer(len(calibration), count)
    if shared:
        notes += (f"{len(shared)} copies of calibration images were left out of the evaluation",)
        rest = rest.subset([index for index in range(len(rest)) if index not in shared])
    return Split(calibration, rest, notes)


def _of_its_own(calibrate: str, evaluation: Images) -> Split:
    parts = read(calibrate)
    calibration = parts.evaluation if parts.train is None else parts.train
    for mine, other in copies(calibration, evaluation):
        raise DataError(
            f"calibration and evaluation share images, such as {calibration.refs[mine]}",
            f"{calibrate} and {evaluation.name} both hold the content of {evaluation.refs[other]}",
            "calibrate with images that are not evaluated, or let them be drawn: --calibrate 256",
        )
    return Split(calibration, evaluation, parts.notes)


def _count(calibrate: str) -> int:
    count = int(calibrate)
    if count < FEWEST:
        fix = "use 256, or give a folder or CSV of calibration images"
        raise DataError(f"{count} calibration images are too few", f"ranges need at least {FEWEST}", fix)
    return count


def _fewer(got: int, asked: int) -> tuple[str, ...]:
    return () if got == asked else (f"{got} calibration images were taken, {asked} were asked for: there are no more",)


def _check_enough(split: Split, calibrate: str) -> None:
    if len(split.calibration) < FEWEST:
        why = f"{', '.join(split.notes) or calibrate}; ranges need at least {FEWEST}"
        fix = "add images that are not evaluated, or give a folder of them: --calibrate FOLDER"
        raise DataError(f"only {len(split.calibration)} calibration images can be had", why, fix)
    if not len(split.evaluation):
        why = "every one of them is a copy of a calibration image"
        raise DataError("no evaluation images are left", why, "add images that are different from each other")
