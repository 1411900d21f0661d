"""Train the smaller graph, without labels, to answer as the whole graph does.

Images are also mixed in pairs (Zhang et al., "mixup", 2018; Beyer et al., "Knowledge distillation: a good
teacher is patient and consistent", 2022): the whole graph answers a mixture as well, so that a few hundred
images give many different questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from shrink.graph.batch import batched
from shrink.graph.training import make_parameters

WARMUP = 0.1  # share of the steps in which the rate rises


def imitate(
    whole: fx.GraphModule,
    small: fx.GraphModule,
    images: Tensor,
    *,
    steps: int,
    batch: int,
    rate: float,
    rng: np.random.Generator,
    track: Callable[[Iterator[int]], Iterator[int]] = lambda steps: steps,
) -> None:
    """Change the weights of `small` in place.

    Args:
        whole: the teacher.
        images: (N, C, H, W), normalized.
        steps: how many batches.
        batch: images in each.
        rate: of Adam at its highest.
        rng: draws and mixes.
    """
    weights = make_parameters(small)
    optimizer = torch.optim.Adam(weights, lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    teacher, student = batched(whole), batched(small)
    for _ in track(iter(range(steps))):
        x = mixed(images, batch, rng)
        with torch.no_grad():
            wanted = teacher(x)
        loss = functional.mse_loss(_centred(student(x)), _centred(wanted))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
    small.requires_grad_(False)


def mixed(images: Tensor, batch: int, rng: np.random.Generator) -> Tensor:
    """A batch, half of it as it is and half mixed with another image by a share drawn evenly."""
    first, second = (torch.from_numpy(rng.integers(len(images), size=batch)) for _ in range(2))
    share = torch.from_numpy(rng.uniform(0.5, 1, batch).astype(np.float32))
    share[: batch // 2] = 1
    share = share.reshape(-1, *[1] * (images.dim() - 1))
    return share * images[first] + (1 - share) * images[second]


def _centred(scores: Tensor) -> Tensor:
    """A number added to all scores changes no answer."""
    return scores - scores.mean(1, keepdim=True)


def _rate(step: int, steps: int) -> float:
    warm = max(1, int(WARMUP * steps))
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
