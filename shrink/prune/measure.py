"""What a removal costs at the model's answers: the scale that makes errors of different layers comparable.

How much a layer's own output changes says little about the answers: a residual block may lose half of
its output unnoticed while another may not. So half of each group is removed on trial, its readers refitted,
and the change of the answers is measured, without labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, fx

from shrink.graph.batch import batched
from shrink.prune.groups import Group
from shrink.prune.remove import get, put
from shrink.prune.surgeon import Curve, Removal

LEAST = 1e-7  # divergence; below it the trial images did not notice


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
    wanted = _answers(graph_module, images)
    found = {}
    for group in track(removals):
        removal = removals[group]
        curve, middle = removal.curve, max(1, len(group.units) // 2)
        changed = _divergence(wanted, _answers(_trial(graph_module, group, removal), images))
        scale = max(changed, LEAST) / max(float(curve.cost[middle]), LEAST)
        found[group] = Curve(curve.order, curve.cost * scale)
    return found


def divergence(whole: fx.GraphModule, small: fx.GraphModule, images: Tensor) -> float:
    """Mean Kullback-Leibler divergence of the answers of `small` from those of `whole`, in nats."""
    return _divergence(_answers(whole, images), _answers(small, images))


def _answers(graph_module: fx.GraphModule, images: Tensor) -> Tensor:
    with torch.no_grad():
        return batched(graph_module)(images).log_softmax(1)


def _divergence(wanted: Tensor, given: Tensor) -> float:
    return float((wanted.exp() * (wanted - given)).sum(1).mean())


def _trial(graph_module: fx.GraphModule, group: Group, removal: Removal) -> fx.GraphModule:
    """The graph with zeros for the first half of a group, and the weights of its readers refitted to that."""
    shared = {id(tensor): tensor for tensor in (*graph_module.parameters(), *graph_module.buffers())}
    trial = copy.deepcopy(graph_module, shared)
    gone = removal.curve.order[: len(group.units) // 2]
    for (target, axis), at in group.constants.items():
        value = get(trial, target).clone()
        value.movedim(axis, 0)[torch.from_numpy(at[gone].flatten())] = 0
        put(trial, target, value)
    for node, weight in removal.half.items():
        put(trial, str(node.args[1].target), weight[:, :-1].reshape(node.args[1].meta["shape"]).contiguous())  # type: ignore[union-attr]
        if len(node.args) > 2 and isinstance(node.args[2], fx.Node):
            put(trial, str(node.args[2].target), weight[:, -1].contiguous())
    return trial
