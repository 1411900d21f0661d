"""Structured pruning: whole channels, heads and hidden units go, and the graph gets smaller and faster.

First what costs nothing: `drop_unread` leaves out places that nobody reads, `unfuse` gives queries, keys and values
a width each, `turn` gathers what a head says in few coordinates. Then `find_groups` says what can only go together,
a score says what it is worth, `choose` how many of each go, `remove` takes them out of a copy, and `repair` and
`imitate` fit what is left, all without labels.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from shrink.errors import RecipeError, nearest
from shrink.graph.edit import copied
from shrink.prune import scores
from shrink.prune.budget import Measure
from shrink.prune.choose import choose
from shrink.prune.cost import macs, work
from shrink.prune.groups import Coupling, Group, find_groups, weighted
from shrink.prune.imitate import imitate
from shrink.prune.measure import at_the_answers, divergence
from shrink.prune.moments import moments
from shrink.prune.plan import Plan, describe
from shrink.prune.products import products
from shrink.prune.remove import remove
from shrink.prune.repair import repair
from shrink.prune.surgeon import Curve, curves
from shrink.prune.turn import turn
from shrink.prune.unfuse import unfuse
from shrink.prune.unread import drop_unread

Score = Literal["error", "taylor", "magnitude", "random"]

BATCH_BYTES = 2**31  # of values that live at once; decides how many images are run together
ROWS = 32768  # in one least-squares fit
TRIAL_WORK = 2e12  # for measuring removals at the answers, as `cost.work`; a minute on two cores
TRIAL_IMAGES = (16, 256)  # at least, at most
REPAIR_IMAGES = 512
STEPS = 200  # of imitation
FEWEST_STEPS = 50  # below it, imitation is left out
BATCHES = (64, 16)  # of imitation; the first with which it has enough steps
TRAINING_WORK = 5e12  # for imitation, as `cost.work`: some minutes on two cores
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

    whole: fx.GraphModule  # answers as the graph that was given; what costs nothing is done
    coupling: Coupling  # of `whole`
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
    fitted = refit(ranked, made, images)
    return train(graph_module, fitted, images, seed=settings.seed, track=track)


def rank(
    graph_module: fx.GraphModule, settings: Settings, images: Tensor | None, *, track: Track = _untracked
) -> Ranked:
    """Find what goes together, and what it is worth; how much is to go is not looked at.

    Raises:
        RecipeError: a layer to keep that does not exist, or a score that needs images.
    """
    check_layers(graph_module, settings.keep)
    whole = copied(graph_module)
    drop_unread(whole)
    if settings.score == "error":
        unfuse(whole)
    coupling = find_groups(whole, keep=settings.keep)
    curves, skipped = _ranked(whole, coupling, settings, images, track)
    return Ranked(whole, coupling, curves, tuple(skipped))


def cut(graph_module: fx.GraphModule, ranked: Ranked, settings: Settings) -> Cut:
    """Take out of a copy what costs least, until the wish is met.

    Raises:
        RecipeError: the wish cannot be met.
    """
    whole, measure = ranked.whole, settings.measure
    gained = macs(graph_module) / macs(whole) if measure == "macs" else 1.0
    ratio, multiple_of = settings.ratio * gained, settings.multiple_of
    dead, left = choose(whole, ranked.coupling, ranked.curves, measure=measure, ratio=ratio, multiple_of=multiple_of)
    if left > ratio:
        raise _out_of_reach(settings, left / gained, ranked.coupling)
    small = remove(whole, ranked.coupling, dead)
    words = {"wish": settings.wish, "score": settings.score}
    plan = describe(graph_module, small, ranked.coupling, dead, **words, skipped=ranked.skipped)
    return Cut(small, msgspec.structs.replace(plan, macs_unread=macs(graph_module) - macs(whole)), dead)


def least_left(graph_module: fx.GraphModule, ranked: Ranked, settings: Settings) -> float:
    """The share of what is to shrink that is left when as much goes as can without emptying a layer; 0..1."""
    whole, measure = ranked.whole, settings.measure
    _, left = choose(whole, ranked.coupling, ranked.curves, measure=measure, ratio=0, multiple_of=settings.multiple_of)
    return left * (macs(whole) / macs(graph_module) if measure == "macs" else 1.0) * (1 + 1e-9)


def smaller(plan: Plan) -> tuple[str, ...]:
    """What a plan does, in words."""
    unread = plan.macs_unread / plan.macs_before
    free = f"; {unread:.1%} went for places that nobody reads, which changes no answer" if unread else ""
    return (f"pruned to {plan.macs_after / plan.macs_before:.1%} of the multiply-accumulates{free}",)


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
    """A curve for every group that may lose units, and those that have none, with the reason.

    For the score "error" the heads of the graph are turned in place.
    """
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
    turn(graph_module, gathered)
    removals = curves(graph_module, coupling, gathered, products(graph_module))
    skipped = [
        (group.name, "nothing that can be judged reads these channels")
        for group in coupling.groups
        if group not in removals
    ]
    trial = images[-_trial_images(graph_module, len(removals)) :]
    ranked = at_the_answers(
        graph_module, removals, trial, track=lambda groups: track(groups, "measure removals at the answers")
    )
    return ranked, skipped


def _trial_images(graph_module: fx.GraphModule, trials: int) -> int:
    affordable = int(TRIAL_WORK / max(1, trials * work(graph_module)))  # two of each, half of the graph on average
    least, most = TRIAL_IMAGES
    return min(max(least, min(affordable, most)), images_at_once(graph_module))


def refit(ranked: Ranked, made: Cut, images: Tensor) -> Pruned:
    """Fit what is left by least squares. Images that no fit has seen judge whether that helped.

    Args:
        images: (N, C, H, W) calibration images, without labels.
    """
    whole, held_out = ranked.whole, _held_out(ranked.whole, images)
    some = images[: min(REPAIR_IMAGES, len(images) - held_out, max(1, images_at_once(whole) // 2))]
    repaired = remove(whole, ranked.coupling, made.dead)
    repair(whole, repaired, ranked.coupling, made.dead, some, per_image=max(16, ROWS // len(some)))
    before, after = (divergence(whole, graph, images[-held_out:]) for graph in (made.graph, repaired))
    words = f"divergence of the answers {before:.3g} -> {after:.3g} on {held_out} others"
    small = repaired if after < before else made.graph
    done = f"{'refitted' if small is repaired else 'not refitted'} on {len(some)} images without labels: {words}"
    return Pruned(small, made.plan, (*smaller(made.plan), done))


def train(whole: fx.GraphModule, fitted: Pruned, images: Tensor, *, seed: int, track: Track = _untracked) -> Pruned:
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
    return min(max(1, len(images) // 8), TRIAL_IMAGES[1], images_at_once(whole))


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
