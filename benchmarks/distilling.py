"""A student half as wide as the demo CNN: learning from the CNN's answers against learning from labels alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.facts import ROOT
from benchmarks.loop import Measured
from shrink.data.held import Held
from shrink.tune.loop import Training
from shrink.tune.settings import Settings
from shrink.tune.teacher import Teacher
from shrink.tune.views import Data

IMAGES = 4_000  # to learn from; 400 more choose the epoch
HELD_OUT = 400
EPOCHS = 5
SEEDS = (0, 1, 2)
SHARES = {"labels": 1.0, "distilled": 0.1}  # of the loss, from labels
RATE = 4e-3


class Half(nn.Module):
    """The demo CNN with half the channels everywhere, batch norms live."""

    def __init__(self) -> None:
        super().__init__()
        import models

        block = models.InvertedResidual
        self.stem = nn.Sequential(models.conv_bn(1, 16, 5, stride=2), nn.Hardswish())
        self.blocks = nn.Sequential(
            block(16, 32, 24), block(24, 64, 64, stride=2), *(block(64, 128, 64) for _ in range(3))
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(64, 256), nn.Hardswish(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return scores


def half_student(folder: Path, scratch: Path) -> Measured:
    """Both ways for every seed, on the same images, judged by the whole test set."""
    sys.path.insert(0, str(ROOT / "recipes" / "demo"))
    import fashion
    import models

    images, labels = fashion.load(folder, "train")
    whole = models.cnn()
    whole.load_state_dict(load_file(ROOT / "recipes" / "demo" / "cnn.safetensors"))
    whole.eval().requires_grad_(False)
    few, held_out = (data(images[part], labels[part]) for part in (slice(IMAGES), slice(-HELD_OUT, None)))
    test = data(*fashion.load(folder, "test"))
    right: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in SHARES}
    for seed in SEEDS:
        for name, share in SHARES.items():
            torch.manual_seed(seed)
            student = Half()
            how = Settings(epochs=EPOCHS, labels=share, seed=seed, rate=RATE, views=EPOCHS, augment=("crop", "flip"))
            teacher = None if share == 1 else Teacher(whole)
            Training(student, teacher, few, held_out, how, Accelerator(cpu=True)).run()
            right[name].append(answers(student, test))
    return Measured(summary(right))


def data(images: Any, labels: Any) -> Data:
    """Images of Fashion-MNIST for the loop."""
    import fashion

    held = Held(np.ascontiguousarray(images)[:, None], labels.astype(np.int64))
    return Data(held, held.labels, len(fashion.CLASSES), (fashion.MEAN,), (fashion.STD,))


def answers(student: nn.Module, test: Data) -> NDArray[np.bool_]:
    """Which images of the test set are named rightly."""
    found = []
    assert test.labels is not None
    with torch.inference_mode():
        for some in np.array_split(np.arange(len(test.pixels)), 50):
            guesses = student(test.normalized(test.pixels.read(some))).argmax(1).numpy()
            found.append(guesses == test.labels[some])
    return np.concatenate(found)


def summary(right: dict[str, list[NDArray[np.bool_]]]) -> dict[str, Any]:
    """Points of top-1, and the flips between the two ways of each seed."""
    pairs = list(zip(right["labels"], right["distilled"], strict=True))
    return {
        "images": len(pairs[0][0]),
        "top1": {name: [float(one.mean()) for one in found] for name, found in right.items()},
        "won": [int((~labels & distilled).sum()) for labels, distilled in pairs],
        "lost": [int((labels & ~distilled).sum()) for labels, distilled in pairs],
    }
