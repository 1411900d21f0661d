"""Whether two runs answered the same images, and which row of the one is which row of the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shrink.errors import RequestError
from shrink.runs.predictions import Predictions


@dataclass(frozen=True, slots=True, eq=False)
class Keyed:
    """n images that can be found again by their content."""

    contents: tuple[bytes, ...]  # a hash of each
    labels: NDArray[np.integer]  # (n,)
    refs: tuple[str, ...]


def keyed(p: Predictions) -> Keyed:
    """The images of predictions."""
    return Keyed(tuple(row.tobytes() for row in p.hashes), p.labels, p.refs)


def pair(old: Keyed, new: Keyed) -> NDArray[np.int64]:
    """Rows of `new` in the order of `old`, shape (n,), found by the content of the images; their order may differ.

    Raises:
        RequestError: the runs answered different images, or know them by different labels.
    """
    ours, theirs = Counter(old.contents), Counter(new.contents)
    if ours != theirs:
        shared = (ours & theirs).total()
        raise RequestError(
            "the two runs answered different images",
            f"{shared:,} images are in both, of {len(old.refs):,} and {len(new.refs):,}; all must be in both",
            "export both with the same data, --calibrate and seed",
        )
    found = np.empty(len(old.refs), np.int64)
    found[_order(old)] = _order(new)
    if (wrong := np.flatnonzero(old.labels != new.labels[found])).size:
        raise RequestError(
            "the two runs know the same images by different labels",
            f"{wrong.size:,} of {len(old.refs):,} differ; the first is {old.refs[wrong[0]]}",
            "export both with the same labels",
        )
    return found


def _order(images: Keyed) -> list[int]:
    """Rows sorted by content, copies by label and then by place."""
    return sorted(range(len(images.refs)), key=lambda row: (images.contents[row], int(images.labels[row])))
