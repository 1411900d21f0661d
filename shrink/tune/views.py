"""Augmented images, batch by batch, as a function of seed, view and place alone.

An epoch looks at one *view* of the images: an order and an augmentation of each, fixed by the seed and the number of
the view. What a batch holds depends neither on the processes that share it nor on what was trained before, so that a
run can be resumed at any batch, and the teacher's answers to a view can be kept.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from shrink.models.torchvision_compat import import_torchvision
from shrink.tune.settings import Augmentation

GROUP = 8  # images that are augmented by the same draw: one call instead of eight
SMALL = 64  # pixels a side: smaller images are shifted, larger ones cut and resized


class Pixels(Protocol):
    """Prepared images: resized and cropped as the device does it, not yet normalized."""

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """(n, C, H, W) uint8."""
        ...


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on.

    Attributes:
        pixels: the images.
        labels: (n,) class of each image; None: not known.
        classes: number of them.
        mean, std: per channel, of pixels in 0..1.
    """

    pixels: Pixels
    labels: NDArray[np.int64] | None
    classes: int
    mean: Sequence[float]
    std: Sequence[float]

    def normalized(self, pixels: Tensor) -> Tensor:
        """uint8 (n, C, H, W) -> float32, contiguous."""
        mean, std = (torch.tensor(list(values)).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pixels.to(torch.float32).div_(255) - mean).div_(std)

    def shares(self, indices: NDArray[np.int64]) -> Tensor:
        """(n, classes): 1 for each image's class; zeros where labels are not known."""
        if self.labels is None:
            return torch.zeros(len(indices), self.classes)
        return functional.one_hot(torch.from_numpy(self.labels[indices]), self.classes).to(torch.float32)

    def class_weights(self, device: torch.device) -> Tensor | None:
        """(classes,): what an image of each class is worth so that all classes are worth the same, 1 on average."""
        if self.labels is None:
            return None
        counts = np.bincount(self.labels, minlength=self.classes)
        weights = np.where(counts > 0, len(self.labels) / (np.maximum(counts, 1) * (counts > 0).sum()), 0)
        return torch.from_numpy(weights.astype(np.float32)).to(device)


class View(Dataset[tuple[Tensor, Tensor]]):
    """One epoch, in groups of `GROUP` images: normalized (GROUP, C, H, W) and shares of the classes (GROUP, classes).

    Args:
        data: what is looked at.
        augmentations: names of `AUGMENTATIONS`, and "mix".
        batch: images per step; an epoch has as many groups as fill whole batches, some images then come twice.
        seed: (seed of the run, number of the view).
        balanced: every class is drawn equally often.
    """

    def __init__(
        self,
        data: Data,
        augmentations: Sequence[Augmentation],
        *,
        batch: int,
        seed: tuple[int, int],
        balanced: bool = False,
    ) -> None:
        self._data, self._seed = data, seed
        shape = tuple(data.pixels.read(np.zeros(1, np.int64)).shape[1:])
        self._change = _pipeline([make(shape) for name, make in AUGMENTATIONS.items() if name in augmentations])
        self._mix = _mixer(data.classes) if "mix" in augmentations else None
        rng = np.random.default_rng(seed)
        order = _balanced(data, rng) if balanced else rng.permutation(len(data.pixels))
        self._order = np.resize(order, -(-len(order) // batch) * batch)

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self._order) // GROUP

    def __getitem__(self, group: int) -> tuple[Tensor, Tensor]:
        indices = self._order[group * GROUP : (group + 1) * GROUP]
        with _seeded(int(np.random.default_rng((*self._seed, group)).integers(2**63))):
            images = self._data.normalized(self._change(self._data.pixels.read(indices)))
            shares = self._data.shares(indices)
            if self._mix is not None and float(torch.rand(())) < 0.5:
                images, shares = self._mix(images, shares)
        return images, shares


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generator, which torchvision draws from, begun anew meanwhile.

    `torch.random.fork_rng` with `torch.manual_seed` does the same for all devices, in ten times the time.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


def _balanced(data: Data, rng: np.random.Generator) -> NDArray[np.int64]:
    """As many draws as there are images, every class as likely as any other."""
    assert data.labels is not None
    counts = np.bincount(data.labels, minlength=data.classes)
    chance = 1 / counts[data.labels]
    return rng.choice(len(data.labels), size=len(data.labels), p=chance / chance.sum()).astype(np.int64)


Change = Callable[[Tensor], Tensor]


def _crop(shape: tuple[int, ...]) -> Change:
    size = shape[1:]
    if max(size) <= SMALL:
        crop: Change = _v2().RandomCrop(size, padding=max(1, min(size) // 12))
        return crop
    resized: Change = _v2().RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True)
    return resized


def _flip(_: tuple[int, ...]) -> Change:
    flip: Change = _v2().RandomHorizontalFlip()
    return flip


def _color(shape: tuple[int, ...]) -> Change:
    kind = {"brightness": 0.2, "contrast": 0.2} | ({"saturation": 0.2, "hue": 0.02} if shape[0] == 3 else {})
    jitter: Change = _v2().ColorJitter(**kind)
    return jitter


AUGMENTATIONS: Mapping[str, Callable[[tuple[int, ...]], Change]] = {"crop": _crop, "flip": _flip, "color": _color}
"""name -> what makes it for images of a shape (C, H, W); in this order."""


def _mixer(classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images blended in pairs, or with a rectangle of another (mixup, Zhang et al. 2018; CutMix, Yun et al. 2019)."""
    v2 = _v2()
    mixers = (v2.MixUp(alpha=0.8, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes))

    def mix(images: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        mixed: tuple[Tensor, Tensor] = mixers[int(torch.randint(2, ()))](images, shares)
        return mixed

    return mix


def _pipeline(changes: Sequence[Change]) -> Change:
    def change(images: Tensor) -> Tensor:
        for one in changes:
            images = one(images)
        return images

    return change


def _v2() -> Any:
    import_torchvision()
    return importlib.import_module("torchvision.transforms.v2")
