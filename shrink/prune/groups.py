"""From a graph to groups of channels: which coordinates of which weights can only be removed together.

The graph is traced twice. Where a dimension is split, as channels into heads and width per head, the
"inner" family may remove from every head the same places, the "outer" family may remove whole heads. Both
keep the graph rectangular, so a plan may use both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from shrink.graph.edit import constant, is_constant
from shrink.prune.rules import RULES
from shrink.prune.trace import Dims, Family, Trace, unknown
from shrink.prune.units import STAYS, Labels

aten = torch.ops.aten
WEIGHTED = (aten.conv2d.default, aten.linear.default)
FAMILIES: tuple[Family, ...] = ("inner", "outer")
Place = tuple[str, int]
"""A dimension: the name of a node and an axis; or the target of a constant and an axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Units that are alike: each takes as many coordinates of the same dimensions."""

    name: str  # the first layer that writes these channels
    units: NDArray[np.int64]  # (n,) numbers of units
    constants: Mapping[Place, NDArray[np.int64]]  # constant -> its coordinates, (n, how many each unit has)


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """All that can be removed from a graph, and what cannot."""

    families: tuple[Mapping[Place, NDArray[np.int64]], ...]  # dimension of a node -> unit or STAYS per coordinate
    groups: tuple[Group, ...]
    units: int  # how many there are; they are numbered from 0
    frozen: tuple[tuple[str, str], ...]  # (layer, why its channels stay)

    def alive(self, place: Place, dead: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Which coordinates of a dimension are left; None if all.

        Args:
            place: name of a node, and an axis from 0.
            dead: (units,), true for those that are removed.
        """
        left = None
        for labels in (family[place] for family in self.families if place in family):
            mine = ~np.append(dead, False)[labels]  # STAYS is the last
            left = mine if left is None else left & mine
        return None if left is None or left.all() else left


def find_groups(graph_module: fx.GraphModule, *, keep: Collection[str] = ()) -> Coupling:
    """Trace a captured graph.

    Args:
        graph_module: as `capture` gives it.
        keep: layers whose channels stay, by the path of the module; those below it, too.
    """
    numbers: dict[frozenset[tuple[str, int, int]], int] = {}  # a unit by what it takes from constants
    families: list[Mapping[Place, NDArray[np.int64]]] = []
    groups: list[Group] = []
    frozen: tuple[tuple[str, str], ...] = ()
    for family in FAMILIES:
        trace = run_rules(graph_module, family, keep=keep)
        places = {place: trace.units.alive(labels) for place, labels in _places(trace)}
        places = {place: labels for place, labels in places.items() if (labels != STAYS).any()}
        known = set(numbers.values())
        renumber = _number(graph_module, places, numbers)
        families.append({place: renumber[labels] for place, labels in places.items()})
        groups += list(_group(graph_module, families[-1], known))
        frozen = frozen or tuple(_frozen(graph_module, trace))
    return Coupling(tuple(families), tuple(groups), len(numbers), frozen)


def run_rules(graph_module: fx.GraphModule, family: Family, *, keep: Collection[str] = ()) -> Trace:
    """Labels for every dimension of every value."""
    trace = Trace(family)
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            trace.dims[node] = [None] * len(node.meta["shape"])
        elif node.op == "get_attr":
            trace.dims[node] = _constant_dims(trace, graph_module, node)
        elif node.op == "output":
            for labels in trace.of(node.args[0]):
                trace.units.freeze(labels, "the model's answers")
        else:
            trace.dims[node] = RULES.get(node.target, unknown)(trace, node)
            if node.target in WEIGHTED and is_kept(node, keep):
                trace.units.freeze(trace.of(node)[1 if len(node.meta["shape"]) == 4 else -1], "asked to be kept")
    return trace


def weighted(graph_module: fx.GraphModule) -> Iterator[fx.Node]:
    """Convolutions and linears whose weight is a constant."""
    for node in graph_module.graph.nodes:
        if node.target in WEIGHTED and is_constant(node.args[1]):
            yield node


def is_kept(node: fx.Node, keep: Collection[str]) -> bool:
    layer = node.meta.get("layer", "")
    return any(layer == name or layer.startswith(f"{name}.") for name in keep)


def _constant_dims(trace: Trace, graph_module: fx.GraphModule, node: fx.Node) -> Dims:
    name = str(node.target)
    if name not in trace.constants:
        value = constant(graph_module, node)
        free = value.is_floating_point()
        trace.constants[name] = [trace.units.fresh(size) if free and size > 1 else None for size in value.shape]
    return trace.constants[name]


def _places(trace: Trace) -> Iterator[tuple[Place, NDArray[np.int64]]]:
    for node, found in trace.dims.items():
        if found and not isinstance(found[0], list):
            for axis, labels in enumerate(found):
                if labels is not None:
                    yield (node.name, axis), labels


def _number(
    graph_module: fx.GraphModule,
    places: Mapping[Place, NDArray[np.int64]],
    numbers: dict[frozenset[tuple[str, int, int]], int],
) -> NDArray[np.int64]:
    """New number of every root: the same for what takes the same from the constants. The last row is STAYS."""
    takes: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for node in graph_module.graph.nodes:
        for axis in range(len(node.meta["shape"])) if is_constant(node) else ():
            for index, root in enumerate(places.get((node.name, axis), np.empty(0, np.int64)).tolist()):
                if root != STAYS:
                    takes[root].append((str(node.target), axis, index))
    size = 1 + max((int(labels.max()) for labels in places.values()), default=-1)
    renumber = np.full(size + 1, STAYS)
    for root, taken in takes.items():
        renumber[root] = numbers.setdefault(frozenset(taken), len(numbers))
    return renumber


def _group(
    graph_module: fx.GraphModule, places: Mapping[Place, NDArray[np.int64]], known: Collection[int]
) -> Iterator[Group]:
    """Units with the same dimensions, as often; those known from an earlier family are not told again."""
    signature: dict[int, Counter[Place]] = defaultdict(Counter)
    for place, labels in places.items():
        found, counts = np.unique(labels[labels != STAYS], return_counts=True)
        for unit, count in zip(found.tolist(), counts.tolist(), strict=True):
            signature[unit][place] += count
    alike: dict[frozenset[tuple[Place, int]], list[int]] = defaultdict(list)
    for unit in sorted(signature.keys() - set(known)):
        alike[frozenset(signature[unit].items())].append(unit)
    for units in alike.values():
        if len(units) > 1:
            yield _described(graph_module, places, np.array(units))


def _described(
    graph_module: fx.GraphModule, places: Mapping[Place, NDArray[np.int64]], units: NDArray[np.int64]
) -> Group:
    constants: dict[Place, NDArray[np.int64]] = {}
    for node in filter(is_constant, graph_module.graph.nodes):
        for axis in range(len(node.meta["shape"])):
            labels = places.get((node.name, axis))
            if labels is not None and units[0] in labels:
                mine = np.flatnonzero(np.isin(labels, units))
                order = mine[np.argsort(labels[mine], kind="stable")]
                constants[str(node.target), axis] = order.reshape(len(units), -1)
    writers = (node for node in weighted(graph_module) if (str(node.args[1].target), 0) in constants)  # type: ignore[union-attr]
    first = next(writers, None)
    name = next(iter(constants))[0] if first is None else first.meta.get("layer", "") or first.name
    return Group(name, units, constants)


def _frozen(graph_module: fx.GraphModule, trace: Trace) -> Iterator[tuple[str, str]]:
    """Layers none of whose output channels can go."""
    for node in weighted(graph_module):
        labels: Labels = trace.of(node.args[1])[0]
        if labels is not None and (trace.units.alive(labels) == STAYS).all():
            yield node.meta.get("layer", "") or node.name, trace.units.why(labels) or "tied to what must stay"
