"""What of a request may be varied, and what may not, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shrink import models, targets
from shrink.errors import ModelError, RecipeError
from shrink.models import Model
from shrink.recipe import ExportRecipe
from shrink.search.points import STEP, Space

SIDES = (6 / 7, 5 / 7)  # of the model's own resolution: 192 and 160 of 224
MULTIPLE = 4  # pixels; sides are rounded to it


def make(
    base: ExportRecipe, model: Model, resolutions: Sequence[int], together: Iterable[str], epochs: Sequence[int]
) -> Space:
    """The space of a request.

    Args:
        base: its `prune` is the most that is tried.
        model: at its own resolution.
        resolutions: sides that were asked for; none: smaller ones that the model takes.
        epochs: of training, alternatives; none: those of the recipe, and none at all.
        together: alternatives, each the name of a target or several joined by "+".

    Raises:
        RecipeError: an unknown target, or a part of the recipe that leaves nothing to search.
        ModelError: a resolution that was asked for and that the model does not take.
    """
    if base.pruning is None or base.pruning[1] != "macs":
        why = "the search removes channels by multiply-accumulates, up to a factor"
        raise RecipeError("prune_params cannot be searched", why, 'give prune = "3x", the most that is tried')
    alternatives = tuple(dict.fromkeys(together))
    for name in (name for names in alternatives for name in names.split("+")):
        targets.load(name)
    own = model.input_shape[2]
    sides, declined = _sides(model, resolutions)
    return Space(
        most_pruned=round(STEP * round(1 / base.pruning[2] / STEP), 2),
        resolutions=sides,
        targets=alternatives,
        own=own,
        epochs=tuple(sorted(set(epochs))) or ((0,) if base.tune is None else tuple(sorted({0, base.tune.epochs}))),
        declined=declined,
    )


def _sides(model: Model, asked: Sequence[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The sides that the model takes, and why it does not take the others."""
    own = model.input_shape[2]
    wanted = asked or (own, *(MULTIPLE * round(own * share / MULTIPLE) for share in SIDES))
    taken, declined = [], []
    for side in dict.fromkeys(wanted):
        try:
            if side != own:
                models.resized(model, side)
            taken.append(side)
        except ModelError as error:
            if asked:
                raise
            declined.append(f"{side} x {side} images: {error.why}")
    return tuple(taken), tuple(declined)
