"""The smaller graph with the weights that stay as they are, or why the wish cannot be met."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
from torch import fx

from shrink.errors import RecipeError
from shrink.prune.blocks import drop_blocks
from shrink.prune.choose import Choice, choose
from shrink.prune.cost import macs
from shrink.prune.groups import Coupling
from shrink.prune.plan import Plan, describe
from shrink.prune.ranking import Ranked, Settings
from shrink.prune.remove import remove


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A smaller graph whose weights are those that stay, and what was taken out."""

    graph: fx.GraphModule
    plan: Plan
    choice: Choice


def cut(graph_module: fx.GraphModule, ranked: Ranked, settings: Settings) -> Cut:
    """Take out of a copy what costs least, until the wish is met.

    Raises:
        RecipeError: the wish cannot be met.
    """
    whole, measure = ranked.whole, settings.measure
    gained = macs(graph_module) / macs(whole) if measure == "macs" else 1.0
    ratio = settings.ratio * gained
    choice = _chosen(ranked, settings, ratio)
    if choice.left > ratio:
        raise _out_of_reach(settings, choice.left / gained, ranked.coupling)
    small = without(ranked, choice)
    words = {"wish": settings.wish, "score": settings.score}
    plan = describe(graph_module, small, ranked.coupling, choice, **words, skipped=ranked.skipped)
    return Cut(small, msgspec.structs.replace(plan, macs_unread=macs(graph_module) - macs(whole)), choice)


def without(ranked: Ranked, choice: Choice) -> fx.GraphModule:
    """A copy of the ranked graph without what was chosen; the weights that stay are as they were."""
    small = remove(ranked.whole, ranked.coupling, choice.dead)
    drop_blocks(small, choice.blocks)
    return small


def _chosen(ranked: Ranked, settings: Settings, ratio: float) -> Choice:
    return choose(
        ranked.whole,
        ranked.coupling,
        ranked.candidates,
        measure=settings.measure,
        ratio=ratio,
        multiple_of=settings.multiple_of,
    )


def least_left(graph_module: fx.GraphModule, ranked: Ranked, settings: Settings) -> float:
    """The share of what is to shrink that is left when as much goes as can without emptying a layer; 0..1."""
    by_macs = macs(ranked.whole) / macs(graph_module) if settings.measure == "macs" else 1.0
    return _chosen(ranked, settings, 0.0).left * by_macs * (1 + 1e-9)


def smaller(plan: Plan) -> tuple[str, ...]:
    """What a plan does, in words."""
    blocks = f", without the blocks {', '.join(item.block for item in plan.blocks)}" if plan.blocks else ""
    unread = plan.macs_unread / plan.macs_before
    free = f"; {unread:.1%} went for places that nobody reads, which changes no answer" if unread else ""
    return (f"pruned to {plan.macs_after / plan.macs_before:.1%} of the multiply-accumulates{blocks}{free}",)


def _out_of_reach(settings: Settings, left: float, coupling: Coupling) -> RecipeError:
    what = "multiply-accumulates" if settings.measure == "macs" else "parameters"
    stays = f"; {len(coupling.frozen)} layers stay, such as {': '.join(coupling.frozen[0])}" if coupling.frozen else ""
    best = f"{math.floor(100 / left) / 100:g}x" if settings.measure == "macs" else f"{math.floor(100 * (1 - left))}%"
    fixes = {
        f"ask for at most {best}": left < 1,
        "keep fewer layers": bool(settings.keep),
        'choose the score "error", with which whole blocks may go': settings.score != "error",
        "leave the model as it is": True,
    }
    return RecipeError(
        f"pruning by {settings.wish} cannot be reached",
        f"without emptying a layer, {left:.1%} of the {what} are left at least{stays}",
        next(fix for fix, helps in fixes.items() if helps),
    )
