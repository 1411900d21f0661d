"""Structured pruning: whole channels, heads and hidden units go, and the graph gets smaller and faster.

First what costs nothing: `drop_unread` leaves out places that nobody reads, `unfuse` gives queries, keys and values
a width each, `turn` gathers what a head says in few coordinates. Then `find_groups` says what can only go together,
a score says what it is worth, `choose` how many of each go, `remove` takes them out of a copy, and `repair` and
`imitate` fit what is left, all without labels.
"""

from __future__ import annotations

from torch import Tensor, fx

from shrink.prune.cutting import Cut, cut, least_left, smaller
from shrink.prune.fit import Pruned, reference, refit, train
from shrink.prune.influence import Reference
from shrink.prune.ranking import Ranked, Score, Settings, Track, rank, untracked
from shrink.prune.surgeon import Curve

__all__ = [
    "Curve",
    "Cut",
    "Pruned",
    "Ranked",
    "Reference",
    "Score",
    "Settings",
    "cut",
    "least_left",
    "rank",
    "reference",
    "refit",
    "run",
    "smaller",
    "train",
]


def run(
    graph_module: fx.GraphModule,
    settings: Settings,
    images: Tensor | None,
    *,
    apply_only: bool = False,
    track: Track = untracked,
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
    return train(ranked, made, fitted, images, seed=settings.seed, track=track)
