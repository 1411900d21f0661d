"""Data that would give wrong ranges or a wrong accuracy is found before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from device_runner.manifest import Preprocess
from shrink.data.images import Images
from shrink.errors import CalibrationError, DataError

FLAT = 0.5 / 255  # deviation of the pixels of a constant image: less than a grey level apart
MOST_FLAT = 0.1  # share of images; a few blank frames are normal in a camera's footage
RANGE_SLACK = 0.05  # pixels beyond 0..1 that rounding cannot explain; normalizing twice gives beyond 1
NARROWEST = 0.1  # span of all pixels of all images; masks, or 16-bit data cut to its top, stay below it
UNCORRELATED = 0.4  # of neighbours: noise 0 to 0.36 (resized); 250 photographs at 32 to 256 pixels 0.45 to 0.99
MOST_NOISE = 0.25  # share of images; 1 in 5,000 of Fashion-MNIST's knitwear is as rough as noise
MOST_COPIES = 0.5  # share of images


@dataclass(slots=True)
class CalibrationStats:
    """Measures of normalized images, gathered batch by batch; each list has one entry per image."""

    bad_values: int = 0  # NaN or infinite
    low: list[NDArray[np.float32]] = field(default_factory=list)  # smallest value of each channel, (C,)
    high: list[NDArray[np.float32]] = field(default_factory=list)
    spread: list[NDArray[np.float32]] = field(default_factory=list)  # deviation within each channel, (C,)
    correlation: list[float] = field(default_factory=list)  # of neighbouring pixels, -1..1; NaN if constant
    contents: set[int] = field(default_factory=set)  # hashes

    def add(self, x: NDArray[np.float32]) -> None:
        """Take in a batch, shape (b, C, H, W)."""
        self.bad_values += int(np.size(x) - np.isfinite(x).sum())
        for image in np.nan_to_num(x, posinf=0.0, neginf=0.0):
            self.low.append(image.min(axis=(1, 2)))
            self.high.append(image.max(axis=(1, 2)))
            self.spread.append(image.std(axis=(1, 2)))
            self.correlation.append(neighbour_correlation(image))
            self.contents.add(hash(image.tobytes()))

    def __len__(self) -> int:
        return len(self.low)


def neighbour_correlation(image: NDArray[np.float32]) -> float:
    """Correlation of each pixel with the one to its right and the one below; shape (C, H, W); NaN if constant."""
    centred = image.astype(np.float64) - image.mean(axis=(1, 2), keepdims=True)
    variance = float((centred**2).mean())
    if variance < 1e-12:
        return float("nan")
    across, down = centred[:, :, 1:] * centred[:, :, :-1], centred[:, 1:] * centred[:, :-1]
    return float((across.mean() + down.mean()) / 2 / variance)


def check_calibration(stats: CalibrationStats, preprocess: Preprocess) -> None:
    """Refuse calibration images whose ranges would be wrong.

    Raises:
        CalibrationError: names the measure and its value.
    """
    for problem in calibration_problems(stats, preprocess):
        raise problem


def calibration_problems(stats: CalibrationStats, preprocess: Preprocess) -> Iterator[CalibrationError]:
    """All reasons to refuse calibration images."""
    if not len(stats):
        yield CalibrationError("there are no calibration images", "none was measured", "give some with --calibrate")
        return
    for measure in MEASURES:
        try:
            measure(stats, np.array(preprocess.mean), np.array(preprocess.std))
        except CalibrationError as problem:
            yield problem


Channels = NDArray[np.float64]  # (C,)


def _finite(stats: CalibrationStats, mean: Channels, std: Channels) -> None:
    if stats.bad_values:
        why = f"{stats.bad_values} values of {len(stats)} images are NaN or infinite"
        raise CalibrationError("calibration images hold NaN or infinity", why, "check how they were prepared")


def _in_range(stats: CalibrationStats, mean: Channels, std: Channels) -> None:
    low = float((np.array(stats.low) * std + mean).min())
    high = float((np.array(stats.high) * std + mean).max())
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise CalibrationError(
            "calibration images lie outside the range of training",
            f"undone with mean and std, their pixels span {low:.2f} to {high:.2f}; an image has 0 to 1",
            "give plain images: they are divided by 255 and normalized here, once",
        )
    if high - low < NARROWEST:
        raise CalibrationError(
            "calibration images use hardly any of the range of training",
            f"all their pixels lie within {low:.3f} to {high:.3f} of 0 to 1",
            "give photographs like those in use, not masks, and 8 bits per channel",
        )


def _varied(stats: CalibrationStats, mean: Channels, std: Channels) -> None:
    flat = float(np.mean((np.array(stats.spread) * std).max(axis=1) < FLAT))
    if flat > MOST_FLAT:
        why = f"{flat:.0%} of {len(stats)} have one colour only; at most {MOST_FLAT:.0%} may"
        raise CalibrationError("calibration images are constant", why, "give photographs like those in use")
    copied = 1 - len(stats.contents) / len(stats)
    if copied > MOST_COPIES:
        why = f"{copied:.0%} of {len(stats)} are copies of another; at most {MOST_COPIES:.0%} may be"
        raise CalibrationError("calibration images are the same", why, "give images that differ")


def _natural(stats: CalibrationStats, mean: Channels, std: Channels) -> None:
    known = np.array([value for value in stats.correlation if not np.isnan(value)])
    noise = float(np.mean(known < UNCORRELATED)) if len(known) else 0.0
    if noise > MOST_NOISE:
        raise CalibrationError(
            "calibration images are random noise",
            f"in {noise:.0%} of {len(known)} images neighbouring pixels correlate by less than {UNCORRELATED}; "
            "in photographs by 0.5 to 1",
            "give photographs like those in use",
        )


MEASURES: tuple[Callable[[CalibrationStats, Channels, Channels], None], ...] = (_finite, _in_range, _varied, _natural)


def check_labels(outputs: int, images: Images) -> None:
    """Refuse labels that are not the model's.

    Args:
        outputs: scores that the model gives per image.
        images: labelled images; their class numbers must be the model's.
    """
    highest = -1 if images.labels is None or not len(images) else int(images.labels.max())
    if images.classes is not None and len(images.classes) != outputs:
        have, fix = f"{len(images.classes)} classes", f"add ?num_classes={len(images.classes)} to the model"
    elif highest >= outputs:
        have, fix = f"labels up to {highest}", f"number the labels 0 to {outputs - 1}"
    else:
        return
    raise DataError(
        f"the model gives {outputs} scores and {images.name} has {have}",
        "output number i must be the score of class number i",
        f"{fix}, with a checkpoint trained so; or list the images in a CSV path,label with the model's own numbers",
    )
