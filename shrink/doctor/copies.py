"""Images that are nearly the same: the same photograph saved again, enlarged, or a little brighter.

Every image is compared by a thumbnail of 16 x 16 grey values; for calibration images these are kept
(1 kB each), evaluation images stream past them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from shrink.doctor.findings import Finding, graded, ok

SIDE = 16
ALIKE = 0.995
"""Correlation of thumbnails above which two images are copies.

A photograph and its JPEG of quality 50 have 0.987 to 0.9999; of 1,000 photographs and 2,000 images of CIFAR-10 no two
different ones are above 0.94. 1 in 1,000 of Fashion-MNIST's trousers is as like another."""
FLAT = 1e-6  # variance of a thumbnail that says nothing

Floats = NDArray[np.float32]


def thumbnail(image: Floats) -> Floats:
    """Mean grey values of 16 x 16 areas, of an image (C, H, W); fewer where it has fewer pixels."""
    grey = image.mean(0, dtype=np.float64)
    rows, columns = (np.unique(np.arange(SIDE) * side // SIDE) for side in grey.shape)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, 0), columns, 1)
    heights, widths = (
        np.diff(np.append(starts, side)) for starts, side in zip((rows, columns), grey.shape, strict=True)
    )
    found: Floats = (sums / np.outer(heights, widths)).astype(np.float32)
    return found


class Copies:
    """Finds near copies among calibration images, and of them among evaluation images."""

    def __init__(self) -> None:
        self._kept: list[Floats] = []
        self._refs: list[str] = []
        self._calibration: NDArray[np.float32] | None = None
        self._seen: set[int] = set()
        self.evaluated = 0
        self.exact = 0  # evaluation images that are exactly another one
        self.leaked: dict[str, str] = {}  # calibration image -> an evaluation image like it

    def calibrate(self, x: Floats, refs: Sequence[str]) -> None:
        """Keep images (b, C, H, W)."""
        for image, ref in zip(x, refs, strict=True):
            self._kept.append(_unit(thumbnail(image)))
            self._refs.append(ref)

    def evaluate(self, x: Floats, refs: Sequence[str]) -> None:
        """Compare images with the calibration images, and forget them but for a hash."""
        if self._calibration is None:
            self._calibration = np.stack(self._kept) if self._kept else np.zeros((0, SIDE * SIDE), np.float32)
        for image, ref in zip(x, refs, strict=True):
            self.evaluated += 1
            known = len(self._seen)
            self._seen.add(hash(image.tobytes()))
            self.exact += len(self._seen) == known
            for index in np.flatnonzero(self._calibration @ _unit(thumbnail(image)) > ALIKE):
                self.leaked.setdefault(self._refs[index], ref)

    def findings(self) -> Iterator[Finding]:
        """About the calibration set, the evaluation set, and both."""
        yield self._within()
        words = f"{self.exact} of {self.evaluated} evaluation images are copies of another"
        if self.exact <= 0.01 * self.evaluated:
            yield ok("repeated", words)
        else:
            why = "each counts once more in the accuracy, and the statistics take them for independent"
            yield Finding("repeated", "warning", words, why, "keep one of each")
        yield self._between()

    def _within(self) -> Finding:
        kept = np.array(self._kept)
        alike = sum(bool((kept[:i] @ kept[i] > ALIKE).any()) for i in range(1, len(kept)))
        share = alike / max(len(self._kept), 1)
        words = f"{alike} of {len(self._kept)} calibration images are nearly the same as another"
        level = graded(share, warning=0.1, error=0.5)
        if level == "ok":
            return ok("copies", words)
        why = "they count as one: ranges come from fewer scenes than it seems"
        return Finding("copies", level, words, why, "draw images from other times and places, not frames of one video")

    def _between(self) -> Finding:
        words = f"{len(self.leaked)} of {len(self._kept)} calibration images are nearly the same as an evaluation image"
        if len(self.leaked) <= max(0.02 * len(self._kept), 1):
            return ok("leakage", words)
        mine, theirs = next(iter(self.leaked.items()))
        why = f"such as {mine} and {theirs}: the model is judged on what its ranges were made for"
        return Finding("leakage", "warning", words, why, "keep all images of one scene in the same part")


def _unit(thumb: Floats) -> Floats:
    """Without mean and scale, so that a product of two is their correlation; zeros of a flat one."""
    full = np.zeros(SIDE * SIDE, np.float32)
    centred = (thumb - thumb.mean()).ravel()
    if float((centred**2).mean()) > FLAT:
        full[: len(centred)] = centred / np.linalg.norm(centred)
    return full
