"""What a removal costs at the model's answers: the scale that makes errors of different layers comparable.

How much a layer's own output changes says little about the answers: a residual block may lose half of
its output unnoticed while another may not. So a quarter and then half of each group are removed on trial, the
readers refitted, and the change of the answers is measured, without labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, fx

from shrink.graph.batch import Walk, batched
from shrink.graph.edit import is_constant
from shrink.prune.groups import Group
from shrink.prune.remove import get
from shrink.prune.surgeon import Curve, Removal

LEAST = 1e-7  # divergence; below it the trial images did not notice
STEEPEST = 4.0  # power of the layer's own error that the divergence may follow
FLATTEST = 0.5

Tried = TypeVar("Tried")


def at_the_answers(
    graph_module: fx.GraphModule,
    removals: Mapping[Group, Removal],
    images: Tensor,
    *,
    track: Callable[[Iterable[Group]], Iterable[Group]] = iter,
) -> dict[Group, Curve]:
    """The curves in units of the Kullback-Leibler divergence of the answers from those of the whole model.

    Args:
        images: (N, C, H, W), run at once.
    """

    def tries(walk: Walk, group: Group) -> list[Walk]:
        return [walk.fork(_without(graph_module, group, removals[group], count)) for count in removals[group].readers]

    calls = [node for node in graph_module.graph.nodes if node.op == "call_function"]
    first = {group: _first(calls, group) for group in removals}
    costs = on_trial(graph_module, first, tries, images, track=track)
    return {
        group: scaled(removal.curve, zip(removal.readers, costs[group], strict=True))
        for group, removal in removals.items()
    }


def on_trial(
    graph_module: fx.GraphModule,
    first: Mapping[Tried, fx.Node],
    tries: Callable[[Walk, Tried], list[Walk]],
    images: Tensor,
    *,
    track: Callable[[Iterable[Tried]], Iterable[Tried]] = iter,
) -> dict[Tried, list[float]]:
    """Divergences of the answers from those of the whole model, where something is changed from some call on.

    Args:
        first: what is tried -> the first call that it changes; what comes before is computed once for all.
        tries: walks that go on from there otherwise.
        images: (N, C, H, W), run at once.
    """
    walk = Walk(graph_module, images)
    calls, done = walk.calls(), 0
    places = {node: place for place, node in enumerate(calls)}
    answers: dict[Tried, list[Tensor]] = {}
    for tried in track(sorted(first, key=lambda one: places[first[one]])):
        at = places[first[tried]]
        for node in calls[done:at]:
            walk.step(node)
        done = at
        answers[tried] = [_rest(changed, calls[done:]) for changed in tries(walk, tried)]
    wanted = _rest(walk, calls[done:])
    return {tried: [_kl_divergence(wanted, given) for given in some] for tried, some in answers.items()}


def scaled(curve: Curve, measured: Iterable[tuple[int, float]]) -> Curve:
    """A curve as c e^p of its own costs e, through two measured costs (units gone, cost).

    The power is held between `FLATTEST` and `STEEPEST`; then the curve goes through the second.
    """
    (few, low), (many, high) = [(count, max(cost, LEAST)) for count, cost in measured]
    own = np.maximum(curve.cost, 0)
    rise = math.log(max(own[many], 1e-12) / max(own[few], 1e-12)) if many > few else 0.0
    power = math.log(high / low) / rise if rise > 1e-6 else 1.0
    power = min(max(power, FLATTEST), STEEPEST)
    return Curve(curve.order, high * (own / max(own[many], 1e-12)) ** power)


def divergence(whole: fx.GraphModule, small: fx.GraphModule, images: Tensor) -> float:
    """Mean Kullback-Leibler divergence of the answers of `small` from those of `whole`, in nats."""
    with torch.no_grad():
        wanted, given = (batched(graph)(images).log_softmax(1) for graph in (whole, small))
    return _kl_divergence(wanted, given)


def _first(calls: list[fx.Node], group: Group) -> fx.Node:
    """The first call that reads a constant of the group."""
    targets = {target for target, _ in group.constants}
    return next(
        node
        for node in calls
        if any(is_constant(source) and source.target in targets for source in node.all_input_nodes)
    )


def _rest(walk: Walk, calls: list[fx.Node]) -> Tensor:
    for node in calls:
        walk.step(node)
    return walk.answers().log_softmax(1)


def _kl_divergence(wanted: Tensor, given: Tensor) -> float:
    return float((wanted.exp() * (wanted - given)).sum(1).mean())


def _without(graph_module: fx.GraphModule, group: Group, removal: Removal, count: int) -> dict[str, Tensor]:
    """Constants with zeros for the first units of a group, and the weights of its readers refitted to that."""
    changed: dict[str, Tensor] = {}
    gone = removal.curve.order[:count]
    for (target, axis), at in group.constants.items():
        value = changed.setdefault(target, get(graph_module, target).clone())
        value.movedim(axis, 0)[torch.from_numpy(at[gone].flatten())] = 0
    for node, weight in removal.readers[count].items():
        changed[str(node.args[1].target)] = weight[:, :-1].reshape(node.args[1].meta["shape"]).contiguous()  # type: ignore[union-attr]
        if len(node.args) > 2 and isinstance(node.args[2], fx.Node):
            changed[str(node.args[2].target)] = weight[:, -1].contiguous()
    return changed
