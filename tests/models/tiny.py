"""Small models for the tests: every way a factory can be right or wrong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CFG = {
    "input_size": (1, 8, 8),
    "mean": (0.5,),
    "std": (0.25,),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}


@dataclass
class Config:  # dataclasses look their own module up by name
    classes: int


class Tiny(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        self.classifier = nn.Linear(4, config.classes)
        self.default_cfg = CFG

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class Returns(nn.Module):
    """Answers with whatever it was given."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer
        self.default_cfg = CFG

    def forward(self, x: Tensor) -> object:
        return self.answer


def make(num_classes: int = 3, width: float = 1.0, name: str = "") -> nn.Module:
    return Tiny(Config(num_classes))


def without_cfg() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def half_a_cfg() -> nn.Module:
    model = Tiny(Config(3))
    model.default_cfg = {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}
    return model


def two_outputs() -> nn.Module:
    return Returns((torch.zeros(1, 3), torch.zeros(1, 3)))


def feature_map() -> nn.Module:
    return Returns(torch.zeros(1, 3, 2, 2))


def no_module() -> dict[str, int]:
    return {"weights": 1}


def broken() -> nn.Module:
    raise KeyError("no such layer")


NUMBER = 7
