"""What the images of a set are like, one by one: numbers gathered batch by batch, a few per set."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from device_runner.manifest import Preprocess
from shrink.data.checks import FLAT, MOST_FLAT, MOST_NOISE, UNCORRELATED, neighbour_correlation
from shrink.data.images import Source
from shrink.doctor.copies import thumbnail
from shrink.doctor.findings import Finding, graded, ok

Floats = NDArray[np.float32]

ALMOST_ALL = 0.97  # share of pixels; trousers of Fashion-MNIST leave up to 88 % of an image black
DARK, BRIGHT = 0.1, 0.9  # of 0..1
CLIPPED = 0.5  # share of pixels at the very top; 0.2 % of CIFAR-10 and of 1,000 photographs have more
STYLE = 0.4  # share of images above which white is the style of the set, not a fault of some
COARSE_NOISE = 0.25  # correlation of neighbours in a thumbnail: noise of any grain below 0.22, photographs 0.31 to 0.9
ONE_GREY = 2.0 / 255  # channels closer than this are the same grey, but for rounding in JPEG
SMALL = 0.5  # of the size that the model looks at


@dataclass(slots=True)
class Pictures:
    """Counts over the images of one set."""

    name: str  # of the set, in findings
    mean: Floats  # (C, 1, 1), of the normalization
    std: Floats
    count: int = 0
    constant: int = 0
    black: int = 0
    white: int = 0
    clipped: int = 0
    rough: int = 0  # neighbouring pixels are unrelated
    coarse_noise: int = 0  # neighbouring regions are
    grey: int = 0  # all channels the same; of sets with more than one
    level: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))  # sum of each channel's mean, (C,)
    square: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))  # and of its square

    def add(self, x: Floats) -> None:
        """Take in normalized images, (b, C, H, W)."""
        for image in x * self.std + self.mean:
            self._add(image)

    def _add(self, image: Floats) -> None:
        self.count += 1
        level = image.mean((1, 2), dtype=np.float64)
        self.level, self.square = self.level + level, self.square + level**2
        self.black += bool((image < DARK).mean() > ALMOST_ALL)
        self.white += bool((image > BRIGHT).mean() > ALMOST_ALL)
        self.clipped += bool((image.min(0) > 1 - FLAT).mean() > CLIPPED)
        self.grey += bool(len(image) > 1 and np.ptp(image, axis=0).max() < ONE_GREY)
        if image.std((1, 2)).max() < FLAT:
            self.constant += 1
            return
        self.rough += neighbour_correlation(image) < UNCORRELATED
        self.coarse_noise += neighbour_correlation(thumbnail(image)[None]) < COARSE_NOISE


def pictures(name: str, preprocess: Preprocess) -> Pictures:
    """No image yet."""
    shape = (-1, 1, 1)
    mean, std = (np.array(v, np.float32).reshape(shape) for v in (preprocess.mean, preprocess.std))
    return Pictures(name, mean, std)


Row = tuple[str, Callable[[Pictures], int], float, float | None, str, str, str]

ROWS: tuple[Row, ...] = (
    ("constant", lambda p: p.constant, 0.01, MOST_FLAT, "have one colour only",
     "they tell nothing of the values in use", "take out blank frames"),
    ("black", lambda p: p.black, 0.01, 0.5, "are black but for a few pixels",
     "no object can be seen, and ranges come out too small", "take out covered or night frames, or expose longer"),
    ("white", lambda p: p.white, 0.01, 0.5, "are white but for a few pixels",
     "no object can be seen", "take out dazzled frames, or expose shorter"),
    ("noise", lambda p: p.rough, 0.01, MOST_NOISE, "are noise: neighbouring pixels are unrelated",
     "ranges taken from noise are wrong for photographs", "give photographs like those in use"),
)  # fmt: skip
"""check, its count, shares above which it is a warning and an error, what, why, fix."""


def of_sets(sets: Sequence[Pictures]) -> Iterator[Finding]:
    """One finding per check of single images if all sets are ok, else one for each set that is not."""
    for check, count, warning, error, what, why, fix in ROWS:
        for seen in sets:
            level = graded(count(seen) / max(seen.count, 1), warning=warning, error=error)
            if level != "ok":
                yield Finding(check, level, f"{count(seen)} of {seen.count} {seen.name} images {what}", why, fix)
        if all(graded(count(seen) / max(seen.count, 1), warning=warning) == "ok" for seen in sets):
            yield ok(check, f"{sum(map(count, sets))} of {sum(seen.count for seen in sets)} images {what}")
    for check_set in (_clipped, _grey):
        found = [check_set(seen) for seen in sets]
        yield from [finding for finding in found if finding.level != "ok"] or found[-1:]


def _clipped(seen: Pictures) -> Finding:
    share = seen.clipped / max(seen.count, 1)
    words = f"{seen.clipped} of {seen.count} {seen.name} images have over half of their pixels at full white"
    if not 0.05 < share <= STYLE:
        return ok("saturated", words)
    why = "light that saturates the camera hides the object; a white background would show in most images, not in some"
    return Finding("saturated", "warning", words, why, "expose shorter, or take these images out")


def _grey(seen: Pictures) -> Finding:
    if len(seen.mean) == 1:
        return ok("colour", "the model looks at grey levels")
    words = f"{seen.grey} of {seen.count} {seen.name} images are grey"
    if seen.grey <= 0.5 * seen.count:
        return ok("colour", words)
    why = "the model takes three channels: if it was trained on colours, it now sees none"
    return Finding("colour", "warning", words, why, 'give colour images, or a model for grey ones with color = "L"')


def compare(calibration: Pictures, evaluation: Pictures) -> Iterator[Finding]:
    """What only the two sets side by side show."""
    yield _shift(calibration, evaluation)
    low, high = (p.coarse_noise / max(p.count, 1) for p in (evaluation, calibration))
    words = f"{high:.0%} of the calibration and {low:.0%} of the evaluation images have no structure beyond fine grain"
    if high - low <= 0.5:
        yield ok("structure", words)
        return
    why = "that is noise made smooth, or bare texture, and not what the model is judged on"
    yield Finding("structure", "error", words, why, "calibrate with photographs like those in use")


def _shift(calibration: Pictures, evaluation: Pictures) -> Finding:
    """Whether a channel is brighter in one set, beyond chance (6 standard errors) and by a size that matters."""
    levels, spreads = zip(*(_moments(p) for p in (calibration, evaluation)), strict=True)
    errors = np.sqrt(spreads[0] ** 2 / max(calibration.count, 1) + spreads[1] ** 2 / max(evaluation.count, 1))
    gap = levels[0] - levels[1]
    far = (np.abs(gap) > 6 * errors) & (np.abs(gap) > 0.5 * spreads[1])
    numbers = " and ".join(", ".join(f"{255 * v:.0f}" for v in level) for level in levels)
    words = f"mean brightness per channel is {numbers} of 255 (calibration and evaluation)"
    if not far.any():
        return ok("alike", words)
    why = "the sets differ by more than chance: ranges would be taken from other pixels than those in use"
    return Finding("alike", "warning", words, why, "calibrate with images from the same camera, prepared the same way")


def _moments(seen: Pictures) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the images of each channel's brightness, and its deviation from image to image."""
    level = seen.level / max(seen.count, 1)
    return level, np.sqrt(np.maximum(seen.square / max(seen.count, 1) - level**2, 1e-12))


class Sized:
    """A source that notes on the way how many of its images are small; their headers are read, no more."""

    def __init__(self, source: Source, wanted: tuple[int, int]) -> None:
        self._source, self._wanted = source, wanted
        self._lock = threading.Lock()
        self.count = self.small = 0
        self.smallest: tuple[int, int] | None = None  # width, height

    def encoded(self, index: int) -> bytes:
        data = self._source.encoded(index)
        try:
            width, height = Image.open(io.BytesIO(data)).size
        except Exception:  # the border to the decoders; the stream says of an image why it cannot be read
            return data
        with self._lock:
            self.count += 1
            self.small += min(width, height) < SMALL * min(self._wanted)
            if self.smallest is None or width * height < self.smallest[0] * self.smallest[1]:
                self.smallest = width, height
        return data

    def suffix(self, index: int) -> str:
        return self._source.suffix(index)

    def size(self, index: int) -> int:
        return self._source.size(index)

    def digest(self, index: int) -> bytes:
        return self._source.digest(index)

    def finding(self, name: str) -> Finding:
        """Whether many images are enlarged a lot."""
        height, width = self._wanted
        smallest = "x".join(map(str, self.smallest or ()))
        words = f"{self.small} of {self.count} {name} images are below half of the input's {width}x{height}"
        if self.small <= 0.1 * self.count:
            return ok("size", f"{words}; the smallest is {smallest}")
        why = f"the smallest is {smallest}: enlarged images are smooth, and those in use may not be"
        return Finding("size", "warning", words, why, "give the images as the camera takes them, or a smaller input")
