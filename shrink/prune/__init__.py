"""Structured pruning: whole channels, heads and hidden units go, and the graph gets smaller and faster.

`find_groups` says what can only go together, a score says what it is worth, `choose` how many of each go,
`remove` takes them out of a copy, and `repair` and `imitate` fit what is left, all without labels.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from shrink.errors import RecipeError, nearest
from shrink.prune import scores
from shrink.prune.budget import Measure
from shrink.prune.choose import choose
from shrink.prune.cost import macs
from shrink.prune.groups import Coupling, Group, find_groups, weighted
from shrink.prune.imitate import BATCH, imitate
from shrink.prune.measure import at_the_answers, divergence
from shrink.prune.moments import moments
from shrink.prune.plan import Plan, describe
from shrink.prune.remove import remove
from shrink.prune.repair import repair
from shrink.prune.surgeon import Curve, curves

Score = Literal["error", "taylor", "magnitude", "random"]

BATCH_BYTES = 2**31  # of values that live at once; decides how many images are run together
ROWS = 32768  # in one least-squares fit
TRIAL_MACS = 5e11  # for measuring removals at the answers
TRIAL_IMAGES = (16, 256)  # at least, at most
REPAIR_IMAGES = 512
STEPS = 200  # of imitation
FEWEST_STEPS = 50  # below it, imitation is left out
TRAINING_MACS = 4e12  # for imitation: some minutes on two cores
RATE = 1e-4

Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Shows the progress of a loop, which is named."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What to prune, and how."""

    wish: str  # in the user's words
    measure: Measure
    ratio: float  # what is left of it, 0..1
    score: Score = "error"
    ranking: scores.Ranking = "isomorphic"  # of the scores but "error", which is in units of the answers
    keep: tuple[str, ...] = ()  # layers
    multiple_of: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """What may go, in which order, and what that costs: the same for every wish."""

    coupling: Coupling
    curves: Mapping[Group, Curve]
    skipped: tuple[tuple[str, str], ...]  # layers that stay though nothing couples them, and why


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A smaller graph whose weights are those that stay, and what was taken out."""

    graph: fx.GraphModule
    plan: Plan
    dead: NDArray[np.bool_]  # (units,)


@dataclass(frozen=True, slots=True)
class Pruned:
    """A smaller graph, and how it came about."""

    graph: fx.GraphModule
    plan: Plan
    changes: tuple[str, ...]  # what was done, in words


def _untracked(items: Iterable[Any], _: str) -> Iterable[Any]:
    return items


def run(
    graph_module: fx.GraphModule,
    settings: Settings,
    images: Tensor | None,
    *,
    apply_only: bool = False,
    track: Track = _untracked,
) -> Pruned:
    """Prune a captured graph: `rank`, `cut`, `refit` and `train`.

    Args:
        graph_module: not changed.
        images: (N, C, H, W) calibration images; None: nothing is fitted, and only scores that need none will do.
        apply_only: leave the weights that stay as they are.

    Raises:
        RecipeError: a layer to keep that does not exist, or a wish that cannot be met.
    """
    ranked = rank(graph_module, settings, images, track=track)
    made = cut(graph_module, ranked, settings)
    if images is None or apply_only:
        return Pruned(made.graph, made.plan, smaller(made.plan))
    fitted = refit(graph_module, ranked, made, images)
    return train(graph_module, fitted, images, seed=settings.seed, track=track)


def rank(
    graph_module: fx.GraphModule, settings: Settings, images: Tensor | None, *, track: Track = _untracked
) -> Ranked:
    """Find what goes together, and what it is worth; how much is to go is not looked at.

    Raises:
        RecipeError: a layer to keep that does not exist, or a score that needs images.
    """
    check_layers(graph_module, settings.keep)
    coupling = find_groups(graph_module, keep=settings.keep)
    curves, skipped = _ranked(graph_module, coupling, settings, images, track)
    return Ranked(coupling, curves, tuple(skipped))


def cut(graph_module: fx.GraphModule, ranked: Ranked, settings: Settings) -> Cut:
    """Take out of a copy what costs least, until the wish is met.

    Raises:
        RecipeError: the wish cannot be met.
    """
    measure, multiple_of = settings.measure, settings.multiple_of
    dead, left = choose(
        graph_module, ranked.coupling, ranked.curves, measure=measure, ratio=settings.ratio, multiple_of=multiple_of
    )
    if left > settings.ratio:
        raise _out_of_reach(settings, left, ranked.coupling)
    small = remove(graph_module, ranked.coupling, dead)
    words = {"wish": settings.wish, "score": settings.score}
    return Cut(small, describe(graph_module, small, ranked.coupling, dead, **words, skipped=ranked.skipped), dead)


def smaller(plan: Plan) -> tuple[str, ...]:
    """What a plan does, in words."""
    return (f"pruned to {plan.macs_after / plan.macs_before:.1%} of the multiply-accumulates",)


def check_layers(graph_module: fx.GraphModule, layers: Sequence[str]) -> None:
    """Refuse a layer to keep that the model does not have."""
    known = {node.meta.get("layer", "") for node in weighted(graph_module)}
    for name in layers:
        if not any(layer == name or layer.startswith(f"{name}.") for layer in known):
            close = difflib.get_close_matches(name, known, n=1)
            fix = nearest(name, close or sorted(known)[:8])
            raise RecipeError(f"there is no layer {name!r} to keep", "no convolution or linear is named so", fix)


def images_at_once(graph_module: fx.GraphModule) -> int:
    """How many images can be run together in `BATCH_BYTES`, by the values that live at the same time."""
    last = {source: node for node in graph_module.graph.nodes for source in node.all_input_nodes}
    live = peak = 0
    for node in graph_module.graph.nodes:
        size = 4 * math.prod(node.meta.get("shape", (0,))) if node.op == "call_function" else 0
        live += size
        peak = max(peak, live)
        for source in node.all_input_nodes:
            if last[source] is node and source.op == "call_function":
                live -= 4 * math.prod(source.meta.get("shape", (0,)))
    return max(1, BATCH_BYTES // max(peak, 1))


def _ranked(
    graph_module: fx.GraphModule, coupling: Coupling, settings: Settings, images: Tensor | None, track: Track
) -> tuple[Mapping[Group, Curve], list[tuple[str, str]]]:
    """A curve for every group that may lose units, and those that have none, with the reason."""
    if settings.score == "magnitude":
        return scores.curves_of(scores.magnitude(graph_module, coupling), settings.ranking), []
    if settings.score == "random":
        return scores.curves_of(scores.random(coupling, np.random.default_rng(settings.seed)), "global"), []
    if images is None:
        raise RecipeError(
            f"the score {settings.score!r} needs images", "it looks at what the layers compute", "give --data DATA"
        )
    batch = min(64, images_at_once(graph_module))
    batches = track(torch.split(images[:REPAIR_IMAGES], batch), "look at the layers' inputs")
    if settings.score == "taylor":
        found = scores.taylor(graph_module, coupling, ((x, None) for x in batches))
        return scores.curves_of(found, settings.ranking), []
    gathered = moments(graph_module, batches, per_image=max(16, ROWS // len(images[:REPAIR_IMAGES])))
    removals = curves(graph_module, coupling, gathered)
    skipped = [
        (group.name, "no layer that can be fitted reads these channels")
        for group in coupling.groups
        if group not in removals
    ]
    trial = images[-_trial_images(graph_module, len(removals)) :]
    ranked = at_the_answers(
        graph_module, removals, trial, track=lambda groups: track(groups, "measure removals at the answers")
    )
    return ranked, skipped


def _trial_images(graph_module: fx.GraphModule, trials: int) -> int:
    affordable = int(TRIAL_MACS / max(1, trials * macs(graph_module)))
    least, most = TRIAL_IMAGES
    return min(max(least, min(affordable, most)), images_at_once(graph_module))


def refit(whole: fx.GraphModule, ranked: Ranked, made: Cut, images: Tensor) -> Pruned:
    """Fit what is left by least squares. Images that no fit has seen judge whether that helped.

    Args:
        whole: the graph that was cut.
        images: (N, C, H, W) calibration images, without labels.
    """
    held_out = min(max(1, len(images) // 8), TRIAL_IMAGES[1], images_at_once(whole))
    some = images[: min(REPAIR_IMAGES, len(images) - held_out, max(1, images_at_once(whole) // 2))]
    repaired = remove(whole, ranked.coupling, made.dead)
    repair(whole, repaired, ranked.coupling, made.dead, some, per_image=max(16, ROWS // len(some)))
    before, after = (divergence(whole, graph, images[-held_out:]) for graph in (made.graph, repaired))
    words = f"divergence of the answers {before:.3g} -> {after:.3g} on {held_out} others"
    small = repaired if after < before else made.graph
    done = f"{'refitted' if small is repaired else 'not refitted'} on {len(some)} images without labels: {words}"
    return Pruned(small, made.plan, (*smaller(made.plan), done))


def train(whole: fx.GraphModule, fitted: Pruned, images: Tensor, *, seed: int, track: Track = _untracked) -> Pruned:
    """Train what was fitted to answer as the whole graph; the graph of `fitted` is changed.

    Left out where it would take long.
    """
    steps = min(STEPS, int(TRAINING_MACS / (BATCH * (macs(whole) + 3 * macs(fitted.graph)))))
    if steps < FEWEST_STEPS:
        return replace(fitted, changes=(*fitted.changes, "no training: it would take long on a model of this size"))
    with torch.enable_grad():
        imitate(
            whole, fitted.graph, images, steps=steps, rate=RATE, rng=np.random.default_rng(seed),
            track=lambda numbers: iter(track(list(numbers), "imitate the whole model")),
        )  # fmt: skip
    done = f"trained for {steps} batches of {BATCH} to answer as the whole model, without labels"
    return replace(fitted, changes=(*fitted.changes, done))


def _out_of_reach(settings: Settings, left: float, coupling: Coupling) -> RecipeError:
    what = "multiply-accumulates" if settings.measure == "macs" else "parameters"
    stays = f"; {len(coupling.frozen)} layers stay, such as {': '.join(coupling.frozen[0])}" if coupling.frozen else ""
    best = f"{math.floor(100 / left) / 100:g}x" if settings.measure == "macs" else f"{math.floor(100 * (1 - left))}%"
    fewer = "keep fewer layers" if settings.keep else "leave the model as it is"
    return RecipeError(
        f"pruning by {settings.wish} cannot be reached",
        f"without emptying a layer, {left:.1%} of the {what} are left at least{stays}",
        f"ask for at most {best}" if left < 1 else fewer,
    )
