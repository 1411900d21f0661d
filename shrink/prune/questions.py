"""Many questions out of few images.

A model may know its calibration images by heart, and answer others less surely. So half of what is asked is at most
mirrored, and half is mixed in pairs and cut closer (Zhang et al., "mixup", 2018); the whole graph answers those, too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CLOSEST = 0.7  # of an image's width and height that a closer cut shows at least


def questions(images: Tensor, batch: int, rng: np.random.Generator) -> Tensor:
    """A batch: half of it images as they are or mirrored, half of it mixtures of two, cut closer."""
    first = images[torch.from_numpy(rng.integers(len(images), size=batch))]
    second = images[torch.from_numpy(rng.integers(len(images), size=batch - batch // 2))]
    share = torch.from_numpy(rng.uniform(0.5, 1, len(second)).astype(np.float32)).reshape(-1, 1, 1, 1)
    mixed = share * first[batch // 2 :] + (1 - share) * second
    mirrored = torch.from_numpy(rng.random(batch) < 0.5).reshape(-1, 1, 1, 1)
    asked = torch.cat([first[: batch // 2], closer(mixed, rng)])
    return torch.where(mirrored, asked.flip(-1), asked)


def closer(images: Tensor, rng: np.random.Generator) -> Tensor:
    """A rectangle of each image, at its own place and of its own size, drawn to the size of the whole."""
    size = rng.uniform(CLOSEST, 1, (len(images), 2))
    place = rng.uniform(-1, 1, (len(images), 2)) * (1 - size)
    frames = np.zeros((len(images), 2, 3), np.float32)
    frames[:, [0, 1], [0, 1]], frames[:, :, 2] = size, place
    grid = functional.affine_grid(torch.from_numpy(frames), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
