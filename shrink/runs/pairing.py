"""Whether two runs answered the same images, and which row of the one is which row of the other."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from shrink.errors import RequestError
from shrink.runs.predictions import Predictions


def pair(old: Predictions, new: Predictions) -> NDArray[np.int64]:
    """Rows of `new` in the order of `old`, shape (n,), found by the content of the images; their order may differ.

    Raises:
        RequestError: the runs answered different images, or know them by different labels.
    """
    ours, theirs = _contents(old), _contents(new)
    if Counter(ours) != Counter(theirs):
        shared = (Counter(ours) & Counter(theirs)).total()
        raise RequestError(
            "the two runs answered different images",
            f"{shared:,} images are in both, of {len(old):,} and {len(new):,}; a paired test needs all of them in both",
            "export both with the same data, --calibrate and seed",
        )
    found = np.empty(len(old), np.int64)
    found[_order(ours, old)] = _order(theirs, new)
    if (wrong := np.flatnonzero(old.labels != new.labels[found])).size:
        raise RequestError(
            "the two runs know the same images by different labels",
            f"{wrong.size:,} of {len(old):,} differ; the first is {old.refs[wrong[0]]}",
            "export both with the same labels",
        )
    return found


def _contents(p: Predictions) -> list[bytes]:
    return [row.tobytes() for row in p.hashes]


def _order(contents: list[bytes], p: Predictions) -> list[int]:
    """Rows sorted by content, copies by label and then by place."""
    return sorted(range(len(p)), key=lambda row: (contents[row], int(p.labels[row])))
