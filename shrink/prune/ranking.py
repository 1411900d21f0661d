"""What may go, in which order, and what that costs: channels, heads, hidden units and whole residual blocks."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, fx

from shrink.errors import RecipeError, nearest
from shrink.graph.edit import copied
from shrink.prune import scores
from shrink.prune.blocks import costs_at_the_answers, find_blocks
from shrink.prune.budget import Measure
from shrink.prune.choose import Candidates
from shrink.prune.cost import work
from shrink.prune.groups import Coupling, find_groups, weighted
from shrink.prune.imitate import as_asked
from shrink.prune.measure import at_the_answers
from shrink.prune.moments import moments
from shrink.prune.products import products
from shrink.prune.surgeon import curves
from shrink.prune.turn import turn
from shrink.prune.unfuse import unfuse
from shrink.prune.unread import drop_unread

Score = Literal["error", "taylor", "magnitude", "random"]

BATCH_BYTES = 2**31  # of values that live at once; decides how many images are run together
ROWS = 32768  # in one least-squares fit
LOOKED_AT = 512  # images whose inputs of layers are summed up
TRIAL_WORK = 3e12  # for measuring removals at the answers, as `cost.work`; a minute on two cores
TRIAL_IMAGES = (16, 256)  # at least, at most

Track = Callable[[Iterable[Any], str], Iterable[Any]]
"""Shows the progress of a loop, which is named."""


def untracked(items: Iterable[Any], _: str) -> Iterable[Any]:
    """Shows nothing."""
    return items


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
    candidates: Candidates
    skipped: tuple[tuple[str, str], ...]  # layers that stay though nothing couples them, and why


def rank(
    graph_module: fx.GraphModule, settings: Settings, images: Tensor | None, *, track: Track = untracked
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
    candidates, skipped = _ranked(whole, coupling, settings, images, track)
    return Ranked(whole, coupling, candidates, tuple(skipped))


def check_layers(graph_module: fx.GraphModule, layers: Sequence[str]) -> None:
    """Refuse a layer to keep that the model does not have."""
    known = {node.meta.get("layer", "") for node in weighted(graph_module)}
    for name in layers:
        if not any(layer == name or layer.startswith(f"{name}.") for layer in known):
            close = difflib.get_close_matches(name, known, n=1)
            fix = nearest(name, close or sorted(known)[:8])
            raise RecipeError(f"there is no layer {name!r} to keep", "no convolution or linear is named so", fix)


def images_at_once(graph_module: fx.GraphModule, *, gradients: bool = False) -> int:
    """How many images can be run together in `BATCH_BYTES`, by the values that live at the same time.

    Args:
        gradients: values are needed again for them, and live to the end.
    """
    last = {source: node for node in graph_module.graph.nodes for source in node.all_input_nodes}
    live = peak = 0
    for node in graph_module.graph.nodes:
        size = 4 * math.prod(node.meta.get("shape", (0,))) if node.op == "call_function" else 0
        live += size
        peak = max(peak, live)
        for source in node.all_input_nodes:
            if last[source] is node and source.op == "call_function" and not gradients:
                live -= 4 * math.prod(source.meta.get("shape", (0,)))
    return max(1, BATCH_BYTES // max(peak, 1))


def _ranked(
    graph_module: fx.GraphModule, coupling: Coupling, settings: Settings, images: Tensor | None, track: Track
) -> tuple[Candidates, list[tuple[str, str]]]:
    """What may go, and the groups that cannot be judged, with the reason.

    For the score "error" the heads of the graph are turned in place.
    """
    if settings.score == "magnitude":
        return Candidates(scores.curves_of(scores.magnitude(graph_module, coupling), settings.ranking)), []
    if settings.score == "random":
        return Candidates(scores.curves_of(scores.random(coupling, np.random.default_rng(settings.seed)), "global")), []
    if images is None:
        raise RecipeError(
            f"the score {settings.score!r} needs images", "it looks at what the layers compute", "give --data DATA"
        )
    rng = np.random.default_rng(settings.seed)
    looked_at = as_asked(graph_module, images[:LOOKED_AT], rng)
    batches = track(torch.split(looked_at, min(64, images_at_once(graph_module))), "look at the layers' inputs")
    if settings.score == "taylor":
        found = scores.taylor(graph_module, coupling, ((x, None) for x in batches))
        return Candidates(scores.curves_of(found, settings.ranking)), []
    gathered = moments(graph_module, batches, per_image=max(16, ROWS // len(looked_at)))
    turn(graph_module, gathered)
    removals = curves(graph_module, coupling, gathered, products(graph_module))
    skipped = [
        (group.name, "nothing that can be judged reads these channels")
        for group in coupling.groups
        if group not in removals
    ]
    blocks = find_blocks(graph_module, keep=settings.keep)
    trial = images[-_trial_images(graph_module, len(removals) + len(blocks) / 2) :]
    trial = as_asked(graph_module, trial, rng)

    def told(items: Iterable[Any]) -> Iterable[Any]:
        return track(items, "measure removals at the answers")

    ranked = at_the_answers(graph_module, removals, trial, track=told)
    return Candidates(ranked, costs_at_the_answers(graph_module, blocks, trial, track=told)), skipped


def _trial_images(graph_module: fx.GraphModule, trials: float) -> int:
    affordable = int(TRIAL_WORK / max(1, trials * work(graph_module)))  # two of each, half of the graph on average
    least, most = TRIAL_IMAGES
    return min(max(least, min(affordable, most)), images_at_once(graph_module))
