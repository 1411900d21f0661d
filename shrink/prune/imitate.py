"""Train the smaller graph, without labels, to answer as the whole graph does, and to say the same on the way.

Each batch asks other questions (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent",
2022). And each answer says much: beside the scores, every sum of a residual branch and its shortcut is matched (Romero
et al., "FitNets", 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional

from shrink.graph.batch import batched_parts
from shrink.graph.edit import telling
from shrink.graph.training import channels_last, frozen, make_parameters, rate_at
from shrink.prune.cost import work
from shrink.prune.questions import questions

WARMUP = 0.1  # share of the steps in which the rate rises
SUMS = 1.0  # weight of the error of all sums together; that of the scores is 1
STEPS = 240
FEWEST_STEPS = 100  # below it, imitation is left out: what 60 taught ViT-Tiny was no better than the fit
BATCH = 64  # batches of 16 taught EfficientNet-Lite0 nothing: its divergence of 0.289 became 0.338
WORK = 6e12  # as `cost.work`: two to three minutes on two cores
RATE = 2e-4


@dataclass(frozen=True, slots=True)
class Twin:
    """A value that both graphs compute."""

    whole: str  # name of the node
    small: str
    left: Mapping[int, NDArray[np.int64]]  # axis -> the coordinates that the smaller graph has, where some are gone


@dataclass(frozen=True, slots=True)
class Lesson:
    """How long to train, and with what."""

    steps: int  # batches
    batch: int  # images in each
    rate: float  # of Adam at its highest


def lesson(whole: fx.GraphModule, small: fx.GraphModule) -> Lesson | None:
    """As many batches as there is time for; None if they are too few."""
    steps = min(STEPS, int(WORK / (BATCH * (work(whole) + 3 * work(small)))))
    return Lesson(steps, BATCH, RATE) if steps >= FEWEST_STEPS else None


def as_asked(whole: fx.GraphModule, images: Tensor, rng: np.random.Generator) -> Tensor:
    """What to rank and fit a model by: questions, if it is small enough to be trained with them, else the images.

    ResNet-56 with 1.5x fewer multiply-accumulates, ranked and fitted on questions and trained, answers 92.84 % of the
    test images of CIFAR-10 right; on images as they are, 92.42 %. ViT-Tiny at 1.3x, for which training takes too long,
    answers 82.0 % of photographs right, and on images as they are 85.6 %.
    """
    return images if lesson(whole, whole) is None else questions(images, len(images), rng)


def imitate(
    whole: fx.GraphModule,
    small: fx.GraphModule,
    images: Tensor,
    lesson: Lesson,
    *,
    twins: Sequence[Twin] = (),
    rng: np.random.Generator,
    track: Callable[[Iterator[int]], Iterator[int]] = lambda steps: steps,
) -> None:
    """Change the weights of `small` in place.

    Args:
        whole: the teacher.
        images: (N, C, H, W), normalized.
        twins: what is matched beside the answers.
        rng: draws, mirrors, cuts and mixes.
    """
    weights = make_parameters(small)
    channels_last(small)
    optimizer = torch.optim.Adam(weights, lr=lesson.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, lesson.steps, WARMUP))
    teacher = batched_parts(telling(whole, tuple(twin.whole for twin in twins)))
    student = batched_parts(telling(small, tuple(twin.small for twin in twins)))
    for _ in track(iter(range(lesson.steps))):
        x = questions(images, lesson.batch, rng)
        with torch.no_grad():
            wanted, *sums = teacher(x)
        given, *mine = student(x)
        loss = _error(_centred(given), _centred(wanted))
        for twin, a, b in zip(twins, mine, sums, strict=True):
            loss = loss + SUMS / len(twins) * _error(a, _left(b, twin))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
    frozen(small)


def _left(value: Tensor, twin: Twin) -> Tensor:
    for axis, at in twin.left.items():
        value = value.index_select(axis + 1, torch.from_numpy(at))
    return value


def _error(given: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of the difference, in shares of the wanted value's."""
    return functional.mse_loss(given, wanted) / wanted.square().mean().clamp_min(1e-12)


def _centred(scores: Tensor) -> Tensor:
    """A number added to all scores changes no answer."""
    return scores - scores.mean(1, keepdim=True)
