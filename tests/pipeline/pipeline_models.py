"""Small classifiers of grey 16 x 16 images: one that is right, and every way a model can be wrong.

The images (see `pipeline_samples`) differ in two ways: their left or right half is brighter, by much,
and their upper or lower half, by little. The class is 2 x (is the right brighter) + (is the upper brighter).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CFG = {"input_size": (1, 16, 16), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0, "interpolation": "bilinear"}


class Halves(nn.Module):
    """Exactly right in float: convolutions that measure the two differences, then a linear that names the class.

    Args:
        coarse: factor of the feature that tells left from right; the other one is left as it is.
        tiny: factor of both features, undone behind them.
    """

    def __init__(self, *, coarse: float = 1.0, tiny: float = 1.0) -> None:
        super().__init__()
        self.default_cfg = CFG
        self.measure = nn.Conv2d(1, 2, 16)  # (b, 1, 16, 16) -> (b, 2, 1, 1)
        self.name = nn.Linear(2, 4)
        self.tiny = tiny
        with torch.no_grad():
            right = torch.ones(16, 16)
            right[:, :8] = -1
            self.measure.weight.copy_(torch.stack([right * coarse, -right.T])[:, None] * tiny / 128)
            self.measure.bias.zero_()
            self.name.weight.copy_(torch.tensor([[-1.0, -4], [-1, 4], [1, -4], [1, 4]]))
            self.name.bias.zero_()

    def features(self, x: Tensor) -> Tensor:
        return self.measure(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.name(self.features(x) / self.tiny)


class Clipped(Halves):
    """A clamp that no scale passes through behind the features."""

    def features(self, x: Tensor) -> Tensor:
        return functional.hardtanh(super().features(x), -1e6, 1e6)


class Ratio(Halves):
    """A division by a feature that is far above 0 in float and rounds to 0 beside the large one in int8."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        return self.name(features) / features[:, 1:].abs()


class Doubtful(Halves):
    """Its control flow depends on the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.name(self.gate(self.features(x)))


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else 2 * x


class Exotic(Halves):
    """Uses an op that no mobile format has."""

    def __init__(self) -> None:
        super().__init__()
        self.solver = Solver()

    def forward(self, x: Tensor) -> Tensor:
        return self.name(self.solver(self.features(x)))


class Solver(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        matrix = torch.eye(2) + 0.01 * x.unsqueeze(2) @ x.unsqueeze(1)  # (b, 2, 2)
        return torch.linalg.solve(matrix, x.unsqueeze(2)).squeeze(2)


class Constant(Halves):
    """Answers the same whatever it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return self.name(self.features(torch.zeros_like(x))) + torch.arange(4.0)


class Overflowing(Halves):
    """Gives NaN in a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Root()

    def forward(self, x: Tensor) -> Tensor:
        return self.name(self.root(self.features(x)))


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(-1 - functional.relu(x))


class Spacious(Halves):
    """The same answers through 16 channels, of which the last 12 are nearly silent and say nothing new."""

    def __init__(self) -> None:
        super().__init__()
        measure = self.measure.weight.detach()
        self.wide, self.head = nn.Conv2d(1, 16, 16), nn.Linear(16, 4)
        rng = torch.Generator().manual_seed(0)
        mix = torch.cat([torch.eye(2), -torch.eye(2), 0.01 * torch.randn(12, 2, generator=rng)])
        undo = torch.cat([torch.eye(2), -torch.eye(2), torch.zeros(12, 2)]).T  # relu(x) - relu(-x) = x
        with torch.no_grad():
            self.wide.weight.copy_(torch.einsum("oi,ichw->ochw", mix, measure))
            self.wide.bias.zero_()
            self.head.weight.copy_(self.name.weight @ undo)
            self.head.bias.zero_()
        del self.measure, self.name

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.wide(x)).mean((2, 3)))


class Picky(Halves):
    """Its shapes depend on the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = Pick()

    def forward(self, x: Tensor) -> Tensor:
        return self.name(self.features(x) + self.pick(x))


class Pick(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)[:, x.flatten() > 9].sum(1, keepdim=True)


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


class Bent(Halves):
    """Uses an op that TFLite has in float only."""

    def __init__(self) -> None:
        super().__init__()
        self.bend = Erf()

    def forward(self, x: Tensor) -> Tensor:
        return self.name(self.bend(self.features(x)))


def bent() -> nn.Module:
    return Bent()


def good() -> nn.Module:
    return Halves()


def prunable() -> nn.Module:
    return Spacious()


def picky() -> nn.Module:
    return Picky()


def blunt() -> nn.Module:
    """Right in float; in int8 the fine feature is lost beside the coarse one, and with it one bit of the class."""
    return Clipped(coarse=3000.0)


def faint() -> nn.Module:
    """Right in float; in int8 the features lie below the smallest scale."""
    return Halves(tiny=1e-12)


def ratio() -> nn.Module:
    return Ratio(coarse=3000.0)


def doubtful() -> nn.Module:
    return Doubtful()


def exotic() -> nn.Module:
    return Exotic()


def constant() -> nn.Module:
    return Constant()


def overflowing() -> nn.Module:
    return Overflowing()


def five() -> nn.Module:
    """One output too many."""
    model = Halves()
    model.name = nn.Linear(2, 5)
    return model


class OneAtATime(Halves):
    """Written for one image: together, the images get the scores of the first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:1]).expand(len(x), -1)


def one_at_a_time() -> nn.Module:
    return OneAtATime()


def talkative() -> nn.Module:
    print("hello from the model's own code")  # noqa: T201
    return Halves()


def mixed_up() -> nn.Module:
    """Its outputs are in another order than the classes of the data."""
    model = Halves()
    with torch.no_grad():
        model.name.weight.copy_(model.name.weight.roll(1, 0))
    return model


class Touchy(Halves):
    """Raises an error of its own on some images."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.max() > 0.1):
            raise ValueError("a bright image")
        return super().forward(x)


def touchy() -> nn.Module:
    return Touchy()
