"""In which order the units of a group are best removed, if what reads them is fitted anew after each.

For a layer y = W x with second moments H of x, removing the inputs S and refitting the others costs
tr(W_S inv(inv(H)_SS) W_S'), and the refitted weights are W - W_S inv(inv(H)_SS) inv(H)_S (Hassibi & Stork,
"Optimal Brain Surgeon", 1993; Kurtic et al., "ZipLM", 2023, removes structures so). Greedy: after each
removal the others are judged again. Channels that meet in a product of two values, as queries and keys do,
cost their share of the product, and nothing is refitted for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from shrink.prune.groups import Coupling, Group
from shrink.prune.moments import Moments, flat_weight
from shrink.prune.products import Product, whole_heads

DAMPING = 1e-3  # of the mean diagonal; moments of few rows have no inverse
STEPS = 64  # how often the units of a group are judged anew
TRIED = (1 / 4, 1 / 2)  # shares of a group whose removal is tried on the answers


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What it costs to remove the units of a group one after the other."""

    order: NDArray[np.int64]  # (n,) places in `Group.units`, the first to go first
    cost: NDArray[np.float64]  # (n + 1,) of the first k of them; never falls


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """A curve, and the weights of the readers when some of the units are gone."""

    curve: Curve
    readers: Mapping[int, Mapping[fx.Node, Tensor]]  # units gone -> reader -> (O, K + 1), the bias last


class _Reader(Protocol):
    """What uses the units of a group."""

    def costs(self, left: Tensor) -> Tensor:
        """(len(left),) what each of these units costs, as a share of the output's power."""

    def drop(self, units: Tensor) -> None:
        """These are gone."""


@dataclass(slots=True)
class _Layer:
    """A layer that is refitted, with what is left to remove."""

    node: fx.Node
    weight: Tensor  # (O, K + 1)
    inverse: Tensor  # (K + 1, K + 1)
    columns: Tensor  # (n, s): the inputs that belong to each unit
    power: float  # mean square of the output about its mean

    def costs(self, left: Tensor) -> Tensor:
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


@dataclass(frozen=True, slots=True)
class _Meeting:
    """A product of two values in which the units meet, such as queries and keys."""

    shares: Tensor  # (n,) of the product's mean square

    def costs(self, left: Tensor) -> Tensor:
        return self.shares[left]

    def drop(self, units: Tensor) -> None:
        """The others stay as they are."""


def remove_in_order(
    graph_module: fx.GraphModule,
    group: Group,
    gathered: Mapping[fx.Node, Moments],
    products: Sequence[Product] = (),
    *,
    damping: float = DAMPING,
) -> Removal | None:
    """The order and costs of removing a group's units; None if nothing that reads them can be judged."""
    layers = _layers(graph_module, group, gathered, damping)
    readers: list[_Reader] = [*layers, *_meetings(graph_module, group, gathered, products)]
    if not readers:
        return None
    count = len(group.units)
    left, order, cost = torch.arange(count), [], [0.0]
    tried: dict[int, Mapping[fx.Node, Tensor]] = {}
    while len(left):
        costs = sum((reader.costs(left) for reader in readers), start=torch.zeros(len(left), dtype=torch.float64))
        chosen = costs.argsort(stable=True)[: max(1, count // STEPS)]
        for reader in readers:
            reader.drop(left[chosen])
        order += left[chosen].tolist()
        cost += costs[chosen].clamp_min(0).tolist()
        if len(tried) < len(TRIED) and len(order) >= TRIED[len(tried)] * count:
            tried[len(order)] = {layer.node: layer.weight.to(torch.float32) for layer in layers}
        keep = torch.ones(len(left), dtype=torch.bool)
        keep[chosen] = False
        left = left[keep]
    return Removal(Curve(np.array(order), np.cumsum(cost)), tried)


def input_columns(node: fx.Node, channels: NDArray[np.int64]) -> Tensor:
    """Columns of the flat weight that input channels (n, m) have, (n, m times the kernel's places)."""
    shape = node.args[1].meta["shape"]  # type: ignore[union-attr]
    places = int(np.prod(shape[2:]))
    return torch.from_numpy((channels[:, :, None] * places + np.arange(places)).reshape(len(channels), -1))


def readers_of(group: Group, nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of the layers that have the group's units among their inputs."""
    return [node for node in nodes if (str(node.args[1].target), 1) in group.constants]  # type: ignore[union-attr]


def _layers(
    graph_module: fx.GraphModule, group: Group, gathered: Mapping[fx.Node, Moments], damping: float
) -> list[_Layer]:
    found = []
    for node in readers_of(group, list(gathered)):
        second = gathered[node].second.to(torch.float64)
        weight = flat_weight(graph_module, node).to(torch.float64)
        mean = weight @ second[:, -1]
        power = float((weight @ second * weight).sum() - mean.square().sum())
        ridge = _ridge(gathered[node], damping) * second.diagonal()[:-1].mean().clamp_min(1e-12)
        damped = second + ridge * torch.eye(len(second), dtype=torch.float64)
        columns = input_columns(node, group.constants[str(node.args[1].target), 1])  # type: ignore[union-attr]
        found.append(_Layer(node, weight, torch.linalg.inv(damped), columns, max(power, 1e-12)))
    return found


def _meetings(
    graph_module: fx.GraphModule, group: Group, gathered: Mapping[fx.Node, Moments], products: Sequence[Product]
) -> list[_Meeting]:
    found = []
    for product in products:
        rows = group.constants.get(product.left.place)
        known = product.left.layer in gathered and product.right.layer in gathered
        if rows is not None and known and not whole_heads(product.left, iter(rows)):  # nobody asks a head that is gone
            found.append(_Meeting(product.shares(graph_module, gathered)[torch.from_numpy(rows)].sum(1)))
    return found


def _ridge(inputs: Moments, least: float) -> float:
    """Damping, the more the fewer rows there are per unknown: else what few images do not show would go for nothing."""
    width = len(inputs.second)
    return max(least, width / (width + inputs.rows))


def curves(
    graph_module: fx.GraphModule,
    coupling: Coupling,
    gathered: Mapping[fx.Node, Moments],
    products: Sequence[Product] = (),
) -> dict[Group, Removal]:
    """The removal of every group that has a reader which can be judged."""
    found = {group: remove_in_order(graph_module, group, gathered, products) for group in coupling.groups}
    return {group: removal for group, removal in found.items() if removal is not None}
