"""Simple scores of units, as others use them: magnitude, Taylor, random. No reader is refitted for them.

Batch norms are folded when a graph is captured, so that a unit's magnitude has its norm's scale in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.nn import functional

from shrink.graph.batch import batched
from shrink.prune.groups import Coupling, Group
from shrink.prune.surgeon import Curve

Ranking = Literal["isomorphic", "global"]
Scores = Mapping[Group, NDArray[np.float64]]
"""Group -> (n,) importance of its units, larger is kept."""


def magnitude(graph_module: fx.GraphModule, coupling: Coupling) -> Scores:
    """L2 norm of all that goes with a unit (Fang et al., "DepGraph", 2023)."""
    squares = {name: value.detach().square() for name, value in _constants(graph_module).items()}
    return {group: np.sqrt(_sums(group, squares)) for group in coupling.groups}


def taylor(graph_module: fx.GraphModule, coupling: Coupling, batches: Iterable[tuple[Tensor, Tensor | None]]) -> Scores:
    """Change of the loss to first order if a unit goes: |sum of gradient x weight|, squared and summed over batches.

    Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019.

    Args:
        batches: images (N, C, H, W) and labels (N,); without labels the model's own best classes are taken.
    """
    constants = {name: value for name, value in _constants(graph_module).items() if value.is_floating_point()}
    weights = {name: value.detach().clone().requires_grad_() for name, value in constants.items()}
    total = {group: np.zeros(len(group.units)) for group in coupling.groups}
    for images, labels in batches:
        scores = torch.func.functional_call(
            _Batched(graph_module), {f"graph.{k}": v for k, v in weights.items()}, images
        )
        loss = functional.cross_entropy(scores, scores.detach().argmax(1) if labels is None else labels)
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        change = {
            name: torch.zeros_like(value) if gradient is None else gradient * value.detach()
            for (name, value), gradient in zip(weights.items(), gradients, strict=True)
        }
        for group in coupling.groups:
            total[group] += _sums(group, change) ** 2
    return total


def random(coupling: Coupling, rng: np.random.Generator) -> Scores:
    """The baseline that any other score must beat."""
    return {group: rng.uniform(0.5, 1.5, len(group.units)) for group in coupling.groups}


def curves_of(scores: Scores, ranking: Ranking) -> dict[Group, Curve]:
    """Least important first. `isomorphic` compares with the mean of all groups that take the same kinds of places.

    Fang et al., "Isomorphic Pruning for Vision Models", 2024.
    """
    alike: dict[frozenset[tuple[int, int]], list[float]] = defaultdict(list)
    for group, values in scores.items():
        alike[_kind(group)] += values.tolist()
    found = {}
    for group, values in scores.items():
        scale = float(np.mean(alike[_kind(group)])) if ranking == "isomorphic" else 1.0
        order = np.argsort(values, kind="stable")  # equal scores go by their place, so that the plan is reproducible
        found[group] = Curve(order, np.concatenate([[0.0], np.cumsum(values[order] / max(scale, 1e-30))]))
    return found


class _Batched(torch.nn.Module):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> Tensor:
        return batched(self.graph)(images)


def _constants(graph_module: fx.GraphModule) -> dict[str, Tensor]:
    return {**dict(graph_module.named_parameters()), **dict(graph_module.named_buffers())}


def _sums(group: Group, values: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """(n,) sums of a tensor's elements over all that belongs to each unit."""
    total = np.zeros(len(group.units))
    for (name, axis), at in group.constants.items():
        rows = values[name].movedim(axis, 0).reshape(values[name].shape[axis], -1).sum(1).to(torch.float64).numpy()
        total += rows[at].sum(1)
    return total


def _kind(group: Group) -> frozenset[tuple[int, int]]:
    """Axes and how many weights have them: what a group looks like without its sizes and names."""
    axes = [axis for _, axis in group.constants]
    return frozenset((axis, axes.count(axis)) for axis in axes)
