"""A model that is right only if every pixel is where, and what, it was in training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 6


def prototypes() -> np.ndarray:
    """Grey levels of a coarse picture per class, (6, 4, 4, 3): three patterns, strong and weak."""
    strong = np.random.default_rng(7).integers(30, 226, (CLASSES // 2, 4, 4, 3)) - 128
    return 128 + np.concatenate([strong, strong // 3])


class Nearest(nn.Module):
    """Scores are minus the distance to each class's normalized prototype."""

    def __init__(self) -> None:
        super().__init__()
        wanted = (prototypes() / 255 - np.array(MEAN)) / np.array(STD)
        self.register_buffer("wanted", torch.tensor(wanted, dtype=torch.float32).permute(0, 3, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 4)
        return -(pooled[:, None] - self.wanted).square().mean((2, 3, 4)) * 20


def nearest() -> nn.Module:
    return Nearest()
