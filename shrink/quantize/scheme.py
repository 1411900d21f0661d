"""Which nodes of a graph are computed in int8, and which values must be held as 8-bit codes.

A region of int8 grows from ops with weights (convolution, linear) through ops the runtime also
computes in int8, as long as what goes in is already in codes and what comes out is wanted in
codes. An op that would only convert to int8 and back stays float: a fully quantized transformer
is slower than float for exactly that reason.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from shrink.graph.clamps import clamp_ends
from shrink.graph.convolution import convolution
from shrink.graph.edit import FIXED_RANGE, KEEP_FLOAT, is_constant
from shrink.graph.pixels import starts_a_sequence
from shrink.graph.shapes import size_of
from shrink.quantize.operands import activations, op_name, operands
from shrink.quantize.pulled import pulled, touches_codes
from shrink.targets import Target


@dataclass(frozen=True, slots=True)
class Scheme:
    """Names of nodes, by what happens to them.

    Attributes:
        static: computed on 8-bit codes with ranges fixed in advance.
        dynamic: ops with 8-bit weights whose input the runtime quantizes as it comes, and the name of that
            input; their output is float.
        values: nodes whose output is held as 8-bit codes, in graph order.
        tied: pairs of values that must share scale and zero point.
        spare: further pairs, which save time if they do.
        ends: values behind a clamp -> its lower and upper end.
        fixed: values whose range is known beforehand.
        slow: ops with weights left in float, for they are slower with run-time ranges.
        pulled: pairs of a value and a reader, both in float, where a converter or runtime would compute on codes.
    """

    static: frozenset[str]
    dynamic: Mapping[str, str]
    values: tuple[str, ...]
    tied: tuple[tuple[str, str], ...]
    fixed: Mapping[str, tuple[float, float]]
    slow: frozenset[str] = frozenset()
    pulled: tuple[tuple[str, str], ...] = ()
    spare: tuple[tuple[str, str], ...] = ()
    ends: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def together(self) -> dict[str, set[str]]:
        """Value -> all that share its scale and zero point, itself among them; of those that are tied."""
        found: dict[str, set[str]] = {}
        for a, b in self.tied:
            both = found.get(a, {a}) | found.get(b, {b})
            found.update(dict.fromkeys(both, both))
        return found


def plan_scheme(
    graph: fx.Graph,
    target: Target,
    *,
    border: str,
    floats: Collection[str] = frozenset(),
) -> Scheme:
    """Choose the int8 regions of a lowered graph.

    Args:
        graph: clean graph with shapes and dtypes in its meta.
        target: tables of the runtime.
        border: input ranges of the linears and convolutions that read or feed float ops: "static", "dynamic", or
            "mixed", dynamic ones for linears and for the convolution that makes tokens of patches.
        floats: names of nodes that stay float amid the others.
    """
    floats = {*floats, *_rounded(graph, target)}
    able = _available(graph, target, floats)
    wanted = _wanted(graph, target, able, floats)
    ran_dynamic = {n for n in able if border != "static" and _may_be_dynamic(n, able, wanted, target, border)}
    ran_dynamic -= {n for n in able if n.name in floats}
    while True:
        able = _available(graph, target, floats, apart=ran_dynamic)
        wanted = _wanted(graph, target, able, floats)
        static = {n for n in _static(graph, target, able, wanted) if not _left(n, target, floats)}
        held = set() if target.float_output else {n for n in ran_dynamic if touches_codes(n, static, target)}
        if not held:
            break
        ran_dynamic = ran_dynamic - held
    slow = {n for n in ran_dynamic if _is_slow(n, target)}
    values = [n for n in graph.nodes if _held(n, static, target)]
    spare = moved(values, static, target.shared, target)
    return Scheme(
        frozenset(n.name for n in static),
        {n.name: n.args[0].name for n in graph.nodes if n in ran_dynamic - slow},
        tuple(n.name for n in values),
        moved(values, static, (*target.same, *target.view), target),
        {n.name: n.meta[FIXED_RANGE] for n in values if FIXED_RANGE in n.meta},
        frozenset(n.name for n in slow),
        tuple(dict.fromkeys(pulled(graph, static, values, target))),
        spare,
        {n.name: clamp_ends(n) for n in values if spare and n in static and op_name(n) in target.clamp},
    )


def moved(
    values: Sequence[fx.Node], static: Collection[fx.Node], ops: Collection[str], target: Target
) -> tuple[tuple[str, str], ...]:
    """Pairs of an input and the output, both held as codes, of the ops so named: those that move codes."""
    movers = [n for n in values if n in static and op_name(n) in ops]
    return tuple((source.name, n.name) for n in movers for source in operands(n, target) if source in values)


def run_time_scheme(graph: fx.Graph, target: Target) -> Scheme:
    """Nothing calibrated: 8-bit weights for every convolution and linear whose input the runtime can quantize."""
    able = [
        node
        for node in graph.nodes
        if op_name(node) in target.compute
        and is_constant(node.args[1])
        and (_is_linear(node) or (target.dynamic_conv and convolution(node).groups == 1))
    ]
    return Scheme(frozenset(), {node.name: node.args[0].name for node in able}, (), (), {})


def _available(
    graph: fx.Graph, target: Target, floats: Collection[str], *, apart: Collection[fx.Node] = ()
) -> set[fx.Node]:
    """Nodes whose output could be codes: their op can, their inputs could be codes, and they are not `apart`.

    So could those of `floats`, which are computed in float and rounded for whoever reads them.
    """
    able: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or node.name in floats:
            able.add(node)
        elif (
            node.op != "call_function"
            or node in apart
            or node.meta.get(KEEP_FLOAT)
            or node.meta.get("dtype") is not torch.float32
        ):
            continue
        elif op_name(node) in target.compute:
            if is_constant(node.args[1]):
                able.add(node)
        elif op_name(node) in target.view or (op_name(node) in target.follow and _slope(node) >= target.least_slope):
            inputs = [n in able for n in activations(node, target)]
            if inputs and (all(inputs) or (any(inputs) and _pulls_codes(node, target))):
                able.add(node)
    return able


def _slope(node: fx.Node) -> float:
    """By which an op multiplies what is negative; 1 for all but a leaky ReLU."""
    if op_name(node) != "leaky_relu.default":
        return 1.0
    slope: float = (*node.args, *node.kwargs.values(), 0.01)[1]  # type: ignore[assignment]
    return slope


def _pulls_codes(node: fx.Node, target: Target) -> bool:
    """Whether the TFLite converter rounds all inputs to the codes of one, as it does for a concatenation.

    Then they need codes of their own, with a range that holds them all.
    """
    return op_name(node) in target.same and not target.float_output


def observable(graph: fx.Graph, target: Target) -> frozenset[str]:
    """The values whose ranges some scheme could need: those that could be codes, and what could read codes."""
    able = _available(graph, target, _rounded(graph, target))
    return frozenset(n.name for node in able for n in (node, *(operands(node, target) if node.args else ())))


MANY_TIMES = 16
"""Values that one of a rounded value scales; what its codes cost is nothing beside what they save."""


def _rounded(graph: fx.Graph, target: Target) -> frozenset[str]:
    """Values of float ops that scale codes of many times their size, such as the softmax over branches in SKNet.

    Rounded themselves, as the gates of squeeze-and-excitation are, they leave the products on codes.
    """
    return frozenset(n.name for n in graph.nodes if op_name(n) in target.rounded and _only_scales(n, n, target))


def _only_scales(value: fx.Node, factor: fx.Node, target: Target) -> bool:
    """Whether all that reads a value, perhaps moved or taken apart, are products with far more values."""
    return all(
        _only_scales(user, factor, target)
        if op_name(user) in target.view
        else op_name(user) == "mul.Tensor" and size_of(user) >= MANY_TIMES * size_of(factor)
        for user in value.users
    )


def _wanted(graph: fx.Graph, target: Target, able: set[fx.Node], floats: Collection[str]) -> dict[fx.Node, bool]:
    """Whether some op computed in int8 reads the value, directly or through others that follow on codes."""
    wanted: dict[fx.Node, bool] = {}
    for node in reversed(graph.nodes):
        wanted[node] = any(
            user in able and (op_name(user) in target.compute or (wanted[user] and user.name not in floats))
            for user in node.users
        )
    return wanted


def _static(graph: fx.Graph, target: Target, able: set[fx.Node], wanted: Mapping[fx.Node, bool]) -> set[fx.Node]:
    """The nodes computed on codes: with weights, or between others that are, or a clamp fused into one."""
    static = {n for n in able if n.op == "call_function" and (op_name(n) in target.compute or wanted[n])}
    clamps = [n for n in graph.nodes if op_name(n) in target.clamp]
    return static | {n for n in clamps if (source := _sole_input(n)) in static and _takes_a_clamp(source, target)}


def _left(node: fx.Node, target: Target, floats: Collection[str]) -> bool:
    """Whether a node stays float; so does a clamp behind one, or the value before it would be held as codes."""
    source = node.args[0] if op_name(node) in target.clamp else None
    return node.name in floats or (isinstance(source, fx.Node) and source.name in floats)


def _may_be_dynamic(
    node: fx.Node, able: set[fx.Node], wanted: dict[fx.Node, bool], target: Target, border: str
) -> bool:
    """Linears beside float ops, and plain convolutions that nothing reads in int8, where the runtime can."""
    if _is_linear(node):
        return not _inside(node, able, wanted, target)
    plain = op_name(node) == "conv2d.default" and convolution(node).groups == 1
    return target.dynamic_conv and plain and not wanted[node] and (border == "dynamic" or _embeds(node, target))


def _embeds(node: fx.Node, target: Target) -> bool:
    """Whether a convolution makes tokens of the patches of the image; rounded, the residual stream would be."""
    return starts_a_sequence(node) and any(n.op == "placeholder" for n in activations(node, target))


MANY = 2**14
"""Values that an op writes; below it, what is lost by few inputs is less than 0.1 ms."""


def _is_slow(node: fx.Node, target: Target) -> bool:
    """Whether 8-bit weights with run-time input ranges take longer than float ones, so that one would notice."""
    weight: Any = node.args[1]
    _, *inputs = weight.meta["shape"]
    return bool(math.prod(inputs) < target.dynamic_inputs and size_of(node) >= MANY)


def _inside(node: fx.Node, able: set[fx.Node], wanted: dict[fx.Node, bool], target: Target) -> bool:
    return wanted[node] and all(n in able and n.op != "placeholder" for n in activations(node, target))


def _is_linear(node: fx.Node) -> bool:
    return op_name(node) == "linear.default"


def _sole_input(node: fx.Node) -> fx.Node | None:
    """The input of a clamp that nothing else reads, so that the runtime fuses the two."""
    source = node.args[0]
    return source if isinstance(source, fx.Node) and len(source.users) == 1 else None


def is_fused(node: fx.Node, static: set[fx.Node], target: Target) -> bool:
    """Whether the value of `node` never exists: its one user is a clamp that is fused into it."""
    user = next(iter(node.users), None)
    if user is None or len(node.users) > 1 or op_name(user) not in target.clamp:
        return False
    return user in static and _takes_a_clamp(node, target)


def _takes_a_clamp(node: fx.Node | None, target: Target) -> bool:
    """Whether the runtime carries out a clamp with the op before it."""
    return node is not None and op_name(node) in (*target.compute, "add.Tensor", "sub.Tensor", "mul.Tensor")


def _held(node: fx.Node, static: set[fx.Node], target: Target) -> bool:
    if node in static:
        answers_in_float = target.float_output and _is_linear(node) and not any(user in static for user in node.users)
        return not (answers_in_float or is_fused(node, static, target))
    return any(user in static and node in operands(user, target) for user in node.users)
