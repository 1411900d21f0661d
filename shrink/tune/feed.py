"""The batches of a training in order, cut into parts for processes and for accumulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from shrink.tune.settings import Settings
from shrink.tune.views import GROUP, Data, View

HELD_OUT = -1  # view of the images that judge


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some images of a step; `view` and `place` name them, the same in every run."""

    view: int
    place: int
    images: Tensor  # (n, C, H, W), normalized
    shares: Tensor  # (n, classes)


@dataclass(frozen=True, slots=True)
class Feed:
    """What one of several processes trains on."""

    data: Data
    settings: Settings
    processes: int = 1
    process: int = 0
    workers: int = 0  # of the loader; 0: this process prepares the images itself

    @property
    def steps_per_epoch(self) -> int:
        """Changes of the weights; the images of the last one are filled up with others."""
        return -(-len(self.data.pixels) // self.settings.batch)

    def parts(self, done: int) -> Iterator[Part]:
        """The parts of this process, `accumulate` for each step, from step `done` on."""
        per_epoch = self.steps_per_epoch
        for epoch in range(done // per_epoch, self.settings.epochs):
            order = np.random.default_rng((self.settings.seed, epoch)).permutation(per_epoch)
            skip = done % per_epoch if epoch == done // per_epoch else 0
            yield from self._epoch(epoch % self.settings.views, order[skip:].tolist())

    def _epoch(self, view: int, places: Sequence[int]) -> Iterator[Part]:
        settings = self.settings
        content = View(
            self.data, settings.augment, batch=settings.batch, seed=(settings.seed, view), balanced=settings.balance
        )
        keys = [place * settings.accumulate + part for place in places for part in range(settings.accumulate)]
        mine = [self._groups(key) for key in keys]
        loader = DataLoader(content, batch_sampler=mine, collate_fn=_together, num_workers=self.workers)
        for key, (images, shares) in zip(keys, loader, strict=True):
            yield Part(view, key, images, shares)

    def _groups(self, key: int) -> list[int]:
        """Every part of a step gets groups from all over its batch, and every process some of them."""
        place, part = divmod(key, self.settings.accumulate)
        groups = self.settings.batch // GROUP
        first = place * groups + part * self.processes + self.process
        return list(range(first, (place + 1) * groups, self.settings.accumulate * self.processes))


def held_out(data: Data, batch: int) -> Iterator[Part]:
    """The images as they are."""
    indices = np.arange(len(data.pixels)).astype(np.int64)
    for number, some in enumerate(np.array_split(indices, -(-len(indices) // batch))):
        yield Part(HELD_OUT, number, data.normalized(data.pixels.read(some)), data.shares(some))


def _together(groups: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, shares = zip(*groups, strict=True)
    return torch.cat(images), torch.cat(shares)
