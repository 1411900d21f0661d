"""The plan of a pruning: data that can be printed, compared and applied again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import fx

from shrink.prune.choose import Choice
from shrink.prune.cost import macs, macs_of, parameters
from shrink.prune.groups import Coupling, weighted


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What one group loses."""

    layer: str  # the first that writes these channels
    units: int  # before: channels, heads, or groups of channels
    removed: tuple[int, ...]  # which of them go


class LayerCost(msgspec.Struct, frozen=True, kw_only=True):
    """One convolution or linear before and after; parts of one that was taken apart count together."""

    layer: str
    weight_before: tuple[int, ...]
    weight_after: tuple[int, ...]  # empty: the layer is gone with its block
    macs_before: int
    macs_after: int


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """A residual block that goes as a whole: the sum is its shortcut."""

    block: str  # path that its layers share
    sum: str  # name of the node that adds branch and shortcut


class Declined(msgspec.Struct, frozen=True, kw_only=True):
    """Channels that stay."""

    layer: str
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is removed from a model, and what that changes."""

    wish: str  # as asked, such as "2x"
    score: str
    macs_before: int
    macs_after: int
    macs_unread: int = 0  # of those that went: for places that nobody reads, which changes no answer
    parameters_before: int
    parameters_after: int
    cuts: tuple[Cut, ...]
    blocks: tuple[Dropped, ...] = ()
    layers: tuple[LayerCost, ...]
    skipped: tuple[Declined, ...]


def describe(
    whole: fx.GraphModule,
    small: fx.GraphModule,
    coupling: Coupling,
    choice: Choice,
    *,
    wish: str,
    score: str,
    skipped: Sequence[tuple[str, str]] = (),
) -> Plan:
    """Write down what a choice takes out of `whole`, which gave `small`."""
    return Plan(
        wish=wish,
        score=score,
        macs_before=macs(whole),
        macs_after=macs(small),
        parameters_before=parameters(whole),
        parameters_after=parameters(small),
        cuts=tuple(_cuts(coupling, choice.dead)),
        blocks=tuple(Dropped(block=block.name, sum=block.total) for block in choice.blocks),
        layers=tuple(_layers(whole, small)),
        skipped=tuple(Declined(layer=layer, why=why) for layer, why in (*coupling.frozen, *skipped)),
    )


def dead_units(plan: Plan, coupling: Coupling) -> NDArray[np.bool_]:
    """The units that a plan removes: (units,), for a coupling that is found the same way every time."""
    dead = np.zeros(coupling.units, bool)
    groups = {(group.name, _occurrence(coupling, i)): group for i, group in enumerate(coupling.groups)}
    seen: dict[str, int] = {}
    for cut in plan.cuts:
        seen[cut.layer] = seen.get(cut.layer, -1) + 1
        dead[groups[cut.layer, seen[cut.layer]].units[list(cut.removed)]] = True
    return dead


def _occurrence(coupling: Coupling, index: int) -> int:
    """How many groups of the same name come before."""
    return sum(group.name == coupling.groups[index].name for group in coupling.groups[:index])


def _cuts(coupling: Coupling, dead: NDArray[np.bool_]) -> Iterator[Cut]:
    for group in coupling.groups:
        removed = np.flatnonzero(dead[group.units])
        yield Cut(layer=group.name, units=len(group.units), removed=tuple(removed.tolist()))


def _layers(whole: fx.GraphModule, small: fx.GraphModule) -> Iterator[LayerCost]:
    after = _by_layer(small)
    for layer, nodes in _by_layer(whole).items():
        yield LayerCost(
            layer=layer,
            weight_before=_weight(nodes),
            weight_after=_weight(after.get(layer, [])),
            macs_before=sum(map(macs_of, nodes)),
            macs_after=sum(map(macs_of, after.get(layer, []))),
        )


def _by_layer(graph_module: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """Convolutions and linears; a layer may be used twice, or have been taken apart."""
    found: dict[str, list[fx.Node]] = {}
    for node in weighted(graph_module):
        found.setdefault(node.meta.get("layer", "") or node.name, []).append(node)
    return found


def _weight(nodes: Sequence[fx.Node]) -> tuple[int, ...]:
    """Shape of the weights of a layer together; empty without a layer."""
    if not nodes:
        return ()
    shapes = {str(node.args[1].target): node.args[1].meta["shape"] for node in nodes}  # type: ignore[union-attr]
    first = next(iter(shapes.values()))
    return (sum(shape[0] for shape in shapes.values()), *first[1:])
