"""Where a file would compute on codes what a scheme leaves in float.

The TFLite converter moves a quantization up and down through every op that is not its own judge, so that a .tflite file
has codes where no simulation had them. In a converted CoaT that made the answers 7.8 times as wrong as those of another
image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from shrink.quantize.operands import activations, op_name
from shrink.targets import Target

STOPS_CODES = frozenset(
    f"{name}.{overload}"
    for overload, names in {
        "Tensor": "add sub mul div",
        "default": "conv2d linear matmul bmm layer_norm gelu silu hardswish hardsigmoid sigmoid tanh relu hardtanh "
        "leaky_relu abs exp neg rsqrt sqrt",
        "dim": "mean",
        "dim_IntList": "sum",
        "int": "softmax",
    }.items()
    for name in names.split()
)
"""Ops in float that stay so behind codes. Through all others, be it a slice, a resize, an average pool
or a maximum, the TFLite converter pulls the codes of their input."""

JOINS = frozenset({"cat.default", "maximum.default", "minimum.default", "where.self"})
"""Ops all of whose operands the TFLite converter rounds to the codes of one."""


def pulled(graph: fx.Graph, static: set[fx.Node], values: list[fx.Node], target: Target) -> Iterator[tuple[str, str]]:
    """Where the file would compute on codes what the simulation computes in float: (value, reader)."""
    if target.format == "onnx":
        return _by_the_runtime(static, values, target)
    return _by_the_converter(graph, static, values, target)


def _by_the_runtime(static: set[fx.Node], values: list[fx.Node], target: Target) -> Iterator[tuple[str, str]]:
    """ONNX Runtime has a softmax from codes to codes. A tenth of what it gives is one code too low."""
    for node in (n for n in values if op_name(n) == "softmax.int"):
        source: Any = node.args[0]
        if _from_codes(source, static, target):
            yield source.name, node.name


def _by_the_converter(
    graph: fx.Graph, static: set[fx.Node], values: list[fx.Node], target: Target
) -> Iterator[tuple[str, str]]:
    """It pulls codes down through what joins them with other values, such as a concatenation with a class token, whose
    numbers it rounds to the same codes, whatever their size. It pulls codes up through what moves numbers, to a value
    that others read in float.
    """
    for node in (n for n in graph.nodes if op_name(n) in JOINS and n not in static):
        for source in activations(node, target):
            if source.meta.get("dtype") is torch.float32 and _from_codes(source, static, target):
                yield source.name, node.name
    above = [n for n in values if n not in static]
    for node in above:  # grows
        if node.op == "call_function" and node not in static and not _stops_codes(node):
            for source in activations(node, target):
                if _is_read_as_codes(source, static):
                    above.append(source)
                elif _shows_codes(source, node):
                    yield source.name, node.name


def touches_codes(node: fx.Node, static: set[fx.Node], target: Target) -> bool:
    """Whether the TFLite converter would let an op that answers in float read or give codes."""
    return _from_codes(node.args[0], static, target) or _into_codes(node, static)


def _shows_codes(source: fx.Node, reader: fx.Node) -> bool:
    """Whether codes that are pulled up to a value from a reader reach its other readers, which want floats.

    What an op in float gives is rounded for those that move it only; what has been moved is rounded for all.
    """
    others = [user for user in source.users if user is not reader]
    return bool(others) and (not _stops_codes(source) or any(not _stops_codes(n) for n in others))


def _is_read_as_codes(node: fx.Node, static: set[fx.Node]) -> bool:
    """Whether all that read a value compute on codes, or move numbers to what does."""
    return bool(node.users) and all(
        user in static or (not _stops_codes(user) and _is_read_as_codes(user, static)) for user in node.users
    )


def _from_codes(node: Any, static: set[fx.Node], target: Target) -> bool:
    """Whether the TFLite converter lets the reader of a value compute on codes, so that it cannot answer in float."""
    if node in static:
        return True
    return not _stops_codes(node) and any(_from_codes(n, static, target) for n in activations(node, target))


def _into_codes(node: fx.Node, static: set[fx.Node]) -> bool:
    return any(user in static or (not _stops_codes(user) and _into_codes(user, static)) for user in node.users)


def _stops_codes(node: fx.Node) -> bool:
    return op_name(node) in STOPS_CODES
