"""In which order the units of a group are best removed, if what reads them is fitted anew after each.

For a layer y = W x with second moments H of x, removing the inputs S and refitting the others costs
tr(W_S inv(inv(H)_SS) W_S'), and the refitted weights are W - W_S inv(inv(H)_SS) inv(H)_S (Hassibi & Stork,
"Optimal Brain Surgeon", 1993; Kurtic et al., "ZipLM", 2023, removes structures so). Greedy: after each
removal the others are judged again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from shrink.graph.edit import constant
from shrink.prune.groups import Coupling, Group
from shrink.prune.moments import Moments

DAMPING = 1e-3  # of the mean diagonal; moments of few rows have no inverse
STEPS = 64  # how often the units of a group are judged anew


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What it costs to remove the units of a group one after the other."""

    order: NDArray[np.int64]  # (n,) places in `Group.units`, the first to go first
    cost: NDArray[np.float64]  # (n + 1,) of the first k of them; never falls


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """A curve, and the weights of the readers when half of the units are gone."""

    curve: Curve
    half: Mapping[fx.Node, Tensor]  # reader -> (O, K + 1), the bias last


@dataclass(slots=True)
class _Reader:
    """A layer that reads the units, with what is left to remove."""

    node: fx.Node
    weight: Tensor  # (O, K + 1)
    inverse: Tensor  # (K + 1, K + 1)
    columns: Tensor  # (n, s): the inputs that belong to each unit
    power: float  # mean square of the output about its mean

    def costs(self, left: Tensor) -> Tensor:
        """(len(left),) what each of these units costs, as a share of the output's power."""
        at = self.columns[left]
        blocks = self.inverse[at[:, :, None], at[:, None, :]]  # (u, s, s)
        weights = self.weight[:, at].permute(1, 2, 0)  # (u, s, O)
        costs: Tensor = (weights * torch.linalg.solve(blocks, weights)).sum((1, 2)) / self.power
        return costs

    def drop(self, units: Tensor) -> None:
        at = self.columns[units].flatten()
        back = torch.linalg.solve(self.inverse[at][:, at], self.inverse[at])  # (s, K + 1)
        self.weight -= self.weight[:, at] @ back
        self.inverse -= self.inverse[:, at] @ back
        self.weight[:, at] = 0


def remove_in_order(
    graph_module: fx.GraphModule, group: Group, gathered: Mapping[fx.Node, Moments], *, damping: float = DAMPING
) -> Removal | None:
    """The order and costs of removing a group's units; None if no layer that reads them was gathered."""
    readers = _readers(graph_module, group, gathered, damping)
    if not readers:
        return None
    count = len(group.units)
    left, order, cost = torch.arange(count), [], [0.0]
    half: dict[fx.Node, Tensor] = {}
    while len(left):
        costs = sum((reader.costs(left) for reader in readers), start=torch.zeros(len(left), dtype=torch.float64))
        chosen = costs.argsort()[: max(1, count // STEPS)]
        for reader in readers:
            reader.drop(left[chosen])
        order += left[chosen].tolist()
        cost += costs[chosen].clamp_min(0).tolist()
        if not half and len(order) >= count // 2:
            half = {reader.node: reader.weight.to(torch.float32) for reader in readers}
        keep = torch.ones(len(left), dtype=torch.bool)
        keep[chosen] = False
        left = left[keep]
    return Removal(Curve(np.array(order), np.cumsum(cost)), half)


def flat_weight(graph_module: fx.GraphModule, node: fx.Node) -> Tensor:
    """Weight and bias of a layer as (O, K + 1)."""
    weight = constant(graph_module, node.args[1]).flatten(1)
    bias = node.args[2] if len(node.args) > 2 else None
    last = weight.new_zeros(len(weight)) if bias is None else constant(graph_module, bias)
    return torch.cat([weight, last[:, None]], 1)


def input_columns(node: fx.Node, channels: NDArray[np.int64]) -> Tensor:
    """Columns of the flat weight that input channels (n, m) have, (n, m times the kernel's places)."""
    shape = node.args[1].meta["shape"]  # type: ignore[union-attr]
    places = int(np.prod(shape[2:]))
    return torch.from_numpy((channels[:, :, None] * places + np.arange(places)).reshape(len(channels), -1))


def readers_of(group: Group, nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of the layers that have the group's units among their inputs."""
    return [node for node in nodes if (str(node.args[1].target), 1) in group.constants]  # type: ignore[union-attr]


def _readers(
    graph_module: fx.GraphModule, group: Group, gathered: Mapping[fx.Node, Moments], damping: float
) -> list[_Reader]:
    found = []
    for node in readers_of(group, list(gathered)):
        second = gathered[node].second.to(torch.float64)
        weight = flat_weight(graph_module, node).to(torch.float64)
        mean = weight @ second[:, -1]
        power = float((weight @ second * weight).sum() - mean.square().sum())
        ridge = _ridge(gathered[node], damping) * second.diagonal()[:-1].mean().clamp_min(1e-12)
        damped = second + ridge * torch.eye(len(second), dtype=torch.float64)
        columns = input_columns(node, group.constants[str(node.args[1].target), 1])  # type: ignore[union-attr]
        found.append(_Reader(node, weight, torch.linalg.inv(damped), columns, max(power, 1e-12)))
    return found


def _ridge(inputs: Moments, least: float) -> float:
    """Damping, the more the fewer rows there are per unknown: else what few images do not show would go for nothing."""
    width = len(inputs.second)
    return max(least, width / (width + inputs.rows))


def curves(
    graph_module: fx.GraphModule, coupling: Coupling, gathered: Mapping[fx.Node, Moments]
) -> dict[Group, Removal]:
    """The removal of every group that has a measured reader."""
    found = {group: remove_in_order(graph_module, group, gathered) for group in coupling.groups}
    return {group: removal for group, removal in found.items() if removal is not None}
