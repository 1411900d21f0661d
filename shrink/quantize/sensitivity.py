"""Which layers cost the most: the error of the scores when one of them alone is left in float."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from shrink.quantize.rounding import WEIGHTED
from shrink.quantize.state import State, Tools


@dataclass(frozen=True, slots=True)
class Cost:
    """What one layer costs.

    Attributes:
        node: its name in the graph.
        layer: its path in the model.
        macs: its multiplications.
        error: of the scores when this one is in float, and all others are as they were.
    """

    node: str
    layer: str
    macs: int
    error: float


def costs(state: State, tools: Tools) -> list[Cost]:
    """Every layer with weights in int8, the costliest first."""
    quantized = state.scheme.static | state.scheme.dynamic.keys()
    layers = [node for node in _layers(state) if node.name in quantized]
    found = [
        Cost(
            node.name,
            str(node.meta.get("layer") or node.name),
            _macs(node),
            tools.error(state.with_floats(tools.target, [node.name])),
        )
        for node in layers
    ]
    return sorted(found, key=lambda cost: cost.error)


def multiplications(state: State) -> int:
    """Of all layers with weights, for one image."""
    return sum(map(_macs, _layers(state)))


def _layers(state: State) -> list[fx.Node]:
    return [node for node in state.graph.graph.nodes if node.target in WEIGHTED]


def _macs(node: fx.Node) -> int:
    weight: Any = node.args[1]
    return int(math.prod(node.meta["shape"]) * math.prod(weight.meta["shape"][1:]))
