"""What a graph costs as a function of how many units each group has lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from shrink.graph.clamps import CLAMPS
from shrink.graph.convolution import convolution
from shrink.graph.edit import is_constant
from shrink.prune.cost import Dim, dims, factors, writers
from shrink.prune.groups import Coupling

aten = torch.ops.aten
Measure = Literal["macs", "parameters"]
Cost = Literal["macs", "parameters", "work"]
"""What can be added up; `work` is the time that a runtime takes, in multiply-accumulates."""

WRITE, DEPTHWISE = 16, 25
"""What LiteRT takes to write a value, and for a product of a depthwise convolution, in products of other layers.

In int8, by CNNs as they are and pruned: 19 and 11 on x86-64 with 8-bit dot products, to a factor of 1.04, if every op
takes 5 microseconds more; up to 50, and about 40, with 8-bit matrix products, to a factor of 1.4. In float 7 and 3.
"""


class Budget:
    """Sums of products of dimensions, each of which shrinks linearly with the units removed."""

    def __init__(self, graph_module: fx.GraphModule, coupling: Coupling, cost: Cost) -> None:
        self._coupling = coupling
        self._group_of = np.full(coupling.units + 1, len(coupling.groups))  # the last: of no group, or STAYS
        for number, group in enumerate(coupling.groups):
            self._group_of[group.units] = number
        self._rows: dict[tuple[str, int, int], int] = {}  # (node, axis, family) -> row of the factors
        self._full: list[float] = [1.0]
        self._lost: list[NDArray[np.float64]] = [np.zeros(len(coupling.groups))]
        terms = list(_terms(graph_module, cost))
        self._owners = [term.owner for term in terms]
        self._scale, found = np.ones(len(terms)), []
        for i, term in enumerate(terms):
            sizes = [node.meta["shape"][axis] for node, axis in term.dims]
            self._scale[i] = term.weight * float(np.prod(sizes, dtype=np.float64))
            found.append([row for dim in term.dims for row in self._factors(dim)])
        width = max(map(len, found), default=0)
        self._index = np.array([rows + [0] * (width - len(rows)) for rows in found], np.int64).reshape(
            len(terms), width
        )
        self._linear = np.array(self._lost)  # (factors, groups): share that one unit takes away

    def cost(self, removed: NDArray[np.int64], gone: Collection[str] = ()) -> float:
        """Of the graph with so many units of each group gone, and these nodes, by their names."""
        return float(self._terms_left(removed, gone)[1].sum())

    def saving(self, removed: NDArray[np.int64], gone: Collection[str] = ()) -> NDArray[np.float64]:
        """(groups,) what one more unit of each group saves, to first order."""
        shares, values = self._terms_left(removed, gone)
        flows = np.zeros(len(shares))
        np.add.at(flows, self._index, values[:, None] / shares[self._index])
        return flows @ self._linear

    def _terms_left(
        self, removed: NDArray[np.int64], gone: Collection[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shares = np.maximum(1 - self._linear @ removed, 1e-9)
        stays = np.array([owner not in gone for owner in self._owners])
        return shares, stays * self._scale * shares[self._index].prod(axis=1)

    def _factors(self, dim: Dim) -> Iterable[int]:
        """Rows of the share that is left of a dimension; heads and their width shrink it independently."""
        node, axis = dim
        for number, family in enumerate(self._coupling.families):
            labels = family.get((node.name, axis))
            if labels is None or not (self._group_of[labels] < len(self._coupling.groups)).any():
                continue
            key = (node.name, axis, number)
            if key not in self._rows:
                counts = np.bincount(self._group_of[labels], minlength=len(self._coupling.groups) + 1)[:-1]
                sizes = [len(group.units) for group in self._coupling.groups]
                known = number > 0 and (node.name, axis, 0) in self._rows
                lost = counts / sizes / len(labels)
                self._rows[key] = len(self._lost)
                self._lost.append(self._only_new(node, axis, lost) if known else lost)
            yield self._rows[key]

    def _only_new(self, node: fx.Node, axis: int, lost: NDArray[np.float64]) -> NDArray[np.float64]:
        """Without the groups that an earlier family already takes from this dimension."""
        return np.where(self._lost[self._rows[node.name, axis, 0]] > 0, 0, lost)


@dataclass(frozen=True, slots=True, eq=False)
class _Term:
    """A product of dimensions, and the name of the node that it is a cost of."""

    owner: str
    dims: Sequence[Dim]
    weight: float = 1.0


def _terms(graph_module: fx.GraphModule, cost: Cost) -> Iterator[_Term]:
    if cost == "parameters":
        constants = {str(node.target): node for node in graph_module.graph.nodes if is_constant(node)}
        yield from (_Term(node.name, list(dims(node))) for node in constants.values())
        return
    for node in graph_module.graph.nodes:
        weight = DEPTHWISE if cost == "work" and _is_depthwise(node) else 1
        yield from (_Term(node.name, term, weight) for term in factors(node))
    if cost == "work":
        written = (node for node in writers(graph_module) if node.target not in CLAMPS)
        yield from (_Term(node.name, list(dims(node)), WRITE) for node in written)


def _is_depthwise(node: fx.Node) -> bool:
    return node.target is aten.conv2d.default and convolution(node).is_depthwise
