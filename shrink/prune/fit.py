"""Fit what is left of a graph, without labels; images that no fit has seen judge whether that helped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx

from shrink.graph.edit import copied
from shrink.prune.cost import work
from shrink.prune.cutting import Cut, smaller, without
from shrink.prune.imitate import imitate
from shrink.prune.measure import divergence
from shrink.prune.plan import Plan
from shrink.prune.ranking import ROWS, Ranked, Track, images_at_once, untracked
from shrink.prune.repair import repair

REPAIR_IMAGES = 512
HELD_OUT = 256  # images at most that judge
STEPS = 200  # of imitation
FEWEST_STEPS = 50  # below it, imitation is left out
BATCHES = (64, 16)  # of imitation; the first with which it has enough steps
TRAINING_WORK = 5e12  # for imitation, as `cost.work`: some minutes on two cores
RATE = 1e-4


@dataclass(frozen=True, slots=True)
class Pruned:
    """A smaller graph, and how it came about."""

    graph: fx.GraphModule
    plan: Plan
    changes: tuple[str, ...]  # what was done, in words


def refit(ranked: Ranked, made: Cut, images: Tensor) -> Pruned:
    """Fit what is left by least squares. Images that no fit has seen judge whether that helped.

    Args:
        images: (N, C, H, W) calibration images, without labels.
    """
    whole, held_out = ranked.whole, _held_out(ranked.whole, images)
    some = images[: min(REPAIR_IMAGES, len(images) - held_out, max(1, images_at_once(whole) // 2))]
    repaired = without(ranked, made.choice)
    repair(whole, repaired, ranked.coupling, made.choice, some, per_image=max(16, ROWS // len(some)))
    before, after = (divergence(whole, graph, images[-held_out:]) for graph in (made.graph, repaired))
    words = f"divergence of the answers {before:.3g} -> {after:.3g} on {held_out} others"
    small = repaired if after < before else made.graph
    done = f"{'refitted' if small is repaired else 'not refitted'} on {len(some)} images without labels: {words}"
    return Pruned(small, made.plan, (*smaller(made.plan), done))


def train(whole: fx.GraphModule, fitted: Pruned, images: Tensor, *, seed: int, track: Track = untracked) -> Pruned:
    """Train a copy of what was fitted to answer as the whole graph; images that it has not seen judge it.

    Left out where it would take long.
    """
    each = work(whole) + 3 * work(fitted.graph)
    plans = [(batch, min(STEPS, int(TRAINING_WORK / (batch * each)))) for batch in BATCHES]
    batch, steps = next((plan for plan in plans if plan[1] >= FEWEST_STEPS), (0, 0))
    if not steps:
        return replace(fitted, changes=(*fitted.changes, "no training: it would take long on a model of this size"))
    held_out, trained = _held_out(whole, images), copied(fitted.graph)
    with torch.enable_grad():
        imitate(
            whole, trained, images[:-held_out], steps=steps, batch=batch, rate=RATE, rng=np.random.default_rng(seed),
            track=lambda numbers: iter(track(list(numbers), "imitate the whole model")),
        )  # fmt: skip
    before, after = (divergence(whole, graph, images[-held_out:]) for graph in (fitted.graph, trained))
    kept = "" if after < before else "not kept: "
    done = f"{kept}trained for {steps} batches of {batch} to answer as the whole model: {before:.3g} -> {after:.3g}"
    graph = trained if after < before else fitted.graph
    return replace(fitted, graph=graph, changes=(*fitted.changes, done))


def _held_out(whole: fx.GraphModule, images: Tensor) -> int:
    """How many of the images, the last, judge."""
    return min(max(1, len(images) // 8), HELD_OUT, images_at_once(whole))
