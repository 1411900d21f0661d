"""A classifier of grey images by how bright they are, of any size, with channels to spare."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = (-0.75, -0.25, 0.25, 0.75)


class Grey(nn.Module):
    """Its score of a level is least far from the mean of the picture: 2 c m - c * c is -(m - c)^2 but for m^2.

    `width` channels, of which all but 4 are nearly silent; relu(x) - relu(-x) is x.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.default_cfg = {
            "input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0, "interpolation": "bilinear"
        }  # fmt: skip
        self.wide, self.deep = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 1)
        self.head = nn.Linear(width, 4)
        rng = torch.Generator().manual_seed(0)
        levels = torch.tensor(LEVELS)
        with torch.no_grad():
            self.wide.weight.copy_(0.01 * torch.randn(width, 1, 3, 3, generator=rng))
            self.wide.weight[:2] = 0
            self.wide.weight[0, 0, 1, 1], self.wide.weight[1, 0, 1, 1] = 1, -1
            self.deep.weight.copy_(0.01 * torch.randn(width, width, 1, 1, generator=rng))
            self.deep.weight[:2] = 0
            self.deep.weight[0, 0], self.deep.weight[1, 1] = 1, 1
            self.wide.bias.zero_(), self.deep.bias.zero_()
            self.head.weight.zero_()
            self.head.weight[:, 0], self.head.weight[:, 1] = 8 * levels, -8 * levels
            self.head.bias.copy_(-4 * levels**2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.deep(functional.relu(self.wide(x)))).mean((2, 3)))


class Fixed(Grey):
    """Takes images of its own size only."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 1, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + self.position)


def grey() -> nn.Module:
    return Grey()


def wide() -> nn.Module:
    return Grey(128)


def fixed() -> nn.Module:
    return Fixed()
