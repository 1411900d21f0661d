"""Fit what is left of a graph, without labels; images that no fit has seen judge whether that helped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx

from shrink.graph.edit import copied
from shrink.prune.choose import Choice
from shrink.prune.cutting import Cut, smaller, without
from shrink.prune.imitate import Twin, as_asked, imitate, lesson
from shrink.prune.influence import Reference
from shrink.prune.measure import divergence
from shrink.prune.plan import Plan
from shrink.prune.questions import questions
from shrink.prune.ranking import ROWS, Ranked, Track, images_at_once, untracked
from shrink.prune.repair import is_sum, lasting_sums, repair
from shrink.prune.trace import shape_of

REPAIR_IMAGES = 512
HELD_OUT = 256  # images at most that judge


@dataclass(frozen=True, slots=True)
class Pruned:
    """A smaller graph, and how it came about."""

    graph: fx.GraphModule
    plan: Plan
    changes: tuple[str, ...]  # what was done, in words


def reference(ranked: Ranked, images: Tensor) -> Reference:
    """What `refit` compares with; refits of several cuts may share it.

    Args:
        images: (N, C, H, W) calibration images, without labels.
    """
    whole = ranked.whole
    some = images[: min(REPAIR_IMAGES, len(images) - _held_out(whole, images), max(1, images_at_once(whole) // 2))]
    some = as_asked(whole, some, np.random.default_rng(0))
    return Reference(whole, some, batch=images_at_once(whole, gradients=True), per_image=max(16, ROWS // len(some)))


def refit(ranked: Ranked, made: Cut, images: Tensor, known: Reference | None = None) -> Pruned:
    """Fit what is left by least squares. Images that no fit has seen judge whether that helped.

    Args:
        images: (N, C, H, W) calibration images, without labels.
        known: the `reference` for them, if there is one.
    """
    known = known or reference(ranked, images)
    whole, held_out, repaired = ranked.whole, _held_out(ranked.whole, images), without(ranked, made.choice)
    repair(known, repaired, ranked.coupling, made.choice)
    before, after = (divergence(whole, graph, images[-held_out:]) for graph in (made.graph, repaired))
    words = f"divergence of the answers {before:.3g} -> {after:.3g} on {held_out} others"
    small = repaired if after < before else made.graph
    done = (
        f"{'refitted' if small is repaired else 'not refitted'} on {len(known.images)} images without labels: {words}"
    )
    return Pruned(small, made.plan, (*smaller(made.plan), done))


def train(ranked: Ranked, made: Cut, fitted: Pruned, images: Tensor, *, seed: int, track: Track = untracked) -> Pruned:
    """Train a copy of what was fitted to answer as the whole graph; questions of images that it has not seen judge it.

    Images as they are would not do: the whole model may know them by heart, and answer others less surely. Left out
    where it would take long.
    """
    whole, taught = ranked.whole, lesson(ranked.whole, fitted.graph)
    if taught is None:
        return replace(fitted, changes=(*fitted.changes, "no training: it would take long on a model of this size"))
    held_out, trained = _held_out(whole, images), copied(fitted.graph)
    with torch.enable_grad():
        imitate(
            whole, trained, images[:-held_out], taught, twins=twins(ranked, made.choice, trained),
            rng=np.random.default_rng(seed),
            track=lambda numbers: iter(track(list(numbers), "imitate the whole model")),
        )  # fmt: skip
    asked = questions(images[-held_out:], held_out, np.random.default_rng(seed))
    before, after = (divergence(whole, graph, asked) for graph in (fitted.graph, trained))
    kept = "" if after < before else "not kept: "
    how = f"{taught.steps} batches of {taught.batch}"
    done = f"{kept}trained for {how} to answer as the whole model: {before:.3g} -> {after:.3g}"
    graph = trained if after < before else fitted.graph
    return replace(fitted, graph=graph, changes=(*fitted.changes, done))


def twins(ranked: Ranked, choice: Choice, small: fx.GraphModule) -> tuple[Twin, ...]:
    """The sums of two branches, which a smaller graph should give as the whole one does."""
    nodes = {node.name: node for node in ranked.whole.graph.nodes}
    lasting = lasting_sums(ranked.whole, choice.blocks)
    found = []
    for node in filter(is_sum, small.graph.nodes):
        name = lasting.get(node.name, node.name)
        places = {axis: ranked.coupling.alive((name, axis), choice.dead) for axis in range(len(shape_of(node)))}
        left = {axis: np.flatnonzero(alive) for axis, alive in places.items() if alive is not None}
        if name in nodes:
            found.append(Twin(name, node.name, left))
    return tuple(found)


def _held_out(whole: fx.GraphModule, images: Tensor) -> int:
    """How many of the images, the last, judge."""
    return min(max(1, len(images) // 8), HELD_OUT, images_at_once(whole))
