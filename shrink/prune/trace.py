"""What the op rules share: the labels found so far, and how to read a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import fx

from shrink.prune.units import Labels, Units

Dims = list[Labels]
Family = Literal["inner", "outer"]
"""Where a dimension is split in two, such as channels into heads and width: which of them loses coordinates."""


@dataclass(slots=True)
class Trace:
    """Labels found so far."""

    family: Family
    units: Units = field(default_factory=Units)
    dims: dict[fx.Node, Any] = field(default_factory=dict)  # Dims, or a list of Dims for a list of tensors
    constants: dict[str, Dims] = field(default_factory=dict)  # by target: a shared weight has one set of labels

    def of(self, node: Any) -> Dims:
        """Labels of a node's one tensor."""
        found: Dims = self.dims[node]
        return found


Rule = Callable[[Trace, fx.Node], Any]


def at(node: fx.Node) -> str:
    """An op and its layer, for a reason."""
    layer = node.meta.get("layer", "")
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    return f"{name} in {layer}" if layer else name


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of a node's tensor; of the parts, where it is a list of tensors, see `_split`."""
    shape: tuple[int, ...] = node.meta["shape"]
    return shape


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def unknown(trace: Trace, node: fx.Node) -> Dims:
    """No rule: everything that comes in stays."""
    for source in node.all_input_nodes:
        freeze_all(trace, source, f"no rule for {at(node)}")
    return [None] * len(node.meta.get("shape", ()))


def freeze_all(trace: Trace, source: fx.Node, why: str) -> None:
    parts = trace.dims[source]
    for labels in parts:
        for one in labels if isinstance(labels, list) else [labels]:
            trace.units.freeze(one, why)
