"""From normalized images back to the grey levels they came from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_runner.manifest import Preprocess


def grey_levels(x: NDArray[np.float32], p: Preprocess) -> NDArray[np.uint8]:
    """The inverse of `device_runner.preprocess.normalize`; exact, for each level is 1/255 from the next.

    Args:
        x: normalized, shape (..., C); what no grey level gives, such as noise, goes to the nearest one.
        p: whose mean and std normalized it.
    """
    levels = (x * np.asarray(p.std, np.float32) + np.asarray(p.mean, np.float32)) * np.float32(255)
    nearest: NDArray[np.uint8] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return nearest
