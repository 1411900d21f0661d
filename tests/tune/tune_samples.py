"""A small training: grey 8 x 8 images of two classes, and networks that tell them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from shrink.data.held import Held
from shrink.tune.loop import Training
from shrink.tune.settings import Settings
from shrink.tune.teacher import Teacher
from shrink.tune.views import Data


def made(count: int, *, rare: int = 2) -> Data:
    """Class 1, one image in `rare`, is brighter on the right; class 0 on the left. All images differ."""
    rng = np.random.default_rng(count)
    labels = (np.arange(count) % rare == rare - 1).astype(np.int64)
    pixels = rng.integers(0, 150, (count, 1, 8, 8), dtype=np.uint8)
    pixels[labels == 0, :, :, :4] += 80
    pixels[labels == 1, :, :, 4:] += 80
    return Data(Held(pixels, labels), labels, 2, (0.5,), (0.5,))


class Sides(nn.Module):
    """Right by construction: the difference of the sides, twice."""

    def forward(self, x: Tensor) -> Tensor:
        right = (x[..., 4:].mean((1, 2, 3)) - x[..., :4].mean((1, 2, 3)))[:, None]
        return torch.cat([-4 * right, 4 * right], 1)


def student(seed: int = 0) -> nn.Module:
    """(N, 1, 8, 8) -> (N, 2), untrained."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))


HOW = Settings(epochs=3, batch=16, rate=1e-2, augment=("crop",), views=2)


def training(how: Settings = HOW, network: nn.Module | None = None, **other: Any) -> Training:
    """96 images: 6 steps an epoch."""
    given = {"teacher": Teacher(Sides()), "data": made(96), "held_out": made(32)} | other
    return Training(student() if network is None else network, settings=how, accelerator=Accelerator(cpu=True), **given)
