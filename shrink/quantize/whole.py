"""The scheme of a file without floats: every op on codes with calibrated ranges, or an error that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import fx

from shrink.errors import LoweringError
from shrink.graph.edit import FIXED_RANGE, KEEP_FLOAT, is_constant
from shrink.quantize.operands import op_name, operands
from shrink.quantize.scheme import Scheme, is_fused, moved
from shrink.targets import Target

GIVEN: Mapping[str, tuple[float, float]] = {
    "softmax.int": (0.0, 255 / 256),
    "sigmoid.default": (0.0, 255 / 256),
    "tanh.default": (-1.0, 127 / 128),
}
"""op -> range of its output that TFLite's kernels ask for, whatever the values are."""


def whole_scheme(graph: fx.Graph, target: Target) -> Scheme:
    """All of a lowered graph in integers.

    Raises:
        LoweringError: names the first op that the target has no integer kernel for, and its layer.
    """
    static = {node for node in graph.nodes if _computes(node)}
    for node in graph.nodes:
        if node in static and not _has_kernel(node, target):
            raise LoweringError(
                f"{op_name(node) or node.target} in layer {node.meta.get('layer') or node.name!r} "
                f"has no integer kernel on {target.name}",
                "every op of such a file computes on integers; `shrink targets show` lists those it has",
                f"replace that op in the model, or export to {target.rival}, which may leave it in float",
            )
    values = [node for node in graph.nodes if _is_held(node, static, target)]
    keeping = {*target.same, *target.view}
    tied = moved(values, static, keeping, target)
    fixed = {node.name: node.meta[FIXED_RANGE] for node in values if FIXED_RANGE in node.meta}
    fixed |= dict(_given(values, keeping))
    return Scheme(frozenset(node.name for node in static), {}, tuple(node.name for node in values), tied, fixed)


def _computes(node: fx.Node) -> bool:
    """Whether a node gives a value that depends on the image; those in front of the grey levels go away."""
    return node.op == "call_function" and not node.meta.get(KEEP_FLOAT)


def _has_kernel(node: fx.Node, target: Target) -> bool:
    name = op_name(node)
    if node.meta.get("dtype") is not torch.float32:
        return False
    return is_constant(node.args[1]) if name in target.compute else name in (*target.follow, *target.view)


def _is_held(node: fx.Node, static: set[fx.Node], target: Target) -> bool:
    if node in static:
        return not is_fused(node, static, target)
    return any(user in static and node in operands(user, target) for user in node.users)


def _given(values: list[fx.Node], keeping: set[str]) -> Iterator[tuple[str, tuple[float, float]]]:
    """The ranges of `GIVEN`, also for what only moves such values."""
    found: dict[fx.Node, tuple[float, float]] = {}
    for node in values:
        source = node.args[0] if op_name(node) in keeping else None
        given = GIVEN.get(op_name(node)) or (found.get(source) if isinstance(source, fx.Node) else None)
        if given is not None:
            found[node] = given
            yield node.name, given
