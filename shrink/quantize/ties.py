"""Keeps averages and sums of codes away from ties, so that every processor rounds them alike.

An average of codes is a sum times a factor, rounded. The sum is an integer and the same everywhere; the factor is a
float32, and kernels for x86 and ARM multiply by it in different ways. In the demo CNN a sum of 903 came to 117.50001,
which XNNPACK rounds to 118 on x86 and to 117 on a Cortex-A72. Where the factor is a fraction with an odd denominator q,
no sum comes nearer to a half than 1 / (2 q), and the last bit of a float32 decides nothing. Sums of two values are the
matter of `sums`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import fx

from shrink.graph.edit import constant, is_constant
from shrink.quantize.codes import HIGH, LOW, Affine
from shrink.quantize.scheme import Scheme
from shrink.quantize.sums import alike

LARGEST = 4095  # denominator: then ties are 1.2e-4 away, four times what float32 can be off at 255
SUMS = frozenset({torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor})
FINEST = 2.0**-9  # scale of a constant over that of the sum it goes into
MOST_CHANGE = 2e-4  # of a scale: at its far end a range moves by a twentieth of a code
DENOMINATORS = np.arange(1, LARGEST + 1, 2)


def apart_from_ties(graph_module: fx.GraphModule, codes: Mapping[str, Affine], scheme: Scheme) -> dict[str, Affine]:
    """The codes, with the scales of averages and sums moved a little; what is tied to one moves with it.

    Before, constants that are added get scales that XNNPACK takes: the sums are moved for these.

    Args:
        graph_module: with shapes in its meta.
        codes: node name -> scale and zero point of its output.
        scheme: what is tied, and which ranges are fixed: those stay.
    """
    found, together = dict(codes), scheme.together()
    for node in graph_module.graph.nodes:
        held = _held(node, found, scheme)
        if node.target in SUMS and held is not None:
            numbers = (n for n in node.all_input_nodes if is_constant(n) and n.name in found)
            found.update({n.name: coarse(found[n.name], found[held].scale) for n in numbers})
    for node in graph_module.graph.nodes:
        move = MOVES.get(node.target)
        held = _held(node, found, scheme)
        if move is None or held is None:
            continue
        sources = [n for n in node.args if isinstance(n, fx.Node)]
        group = together.get(held, {held})
        if group & scheme.fixed.keys() or any(n.name in group or n.name not in found for n in sources):
            continue
        scale = move(graph_module, node, found, held)
        found.update({name: replace(found[name], scale=scale) for name in group if name in found})
    return found


def coarse(number: Affine, total: float) -> Affine:
    """The codes of a constant that is added, with a scale no finer than XNNPACK takes beside that of the sum.

    It refuses a factor below 2^-10, and the sum is computed outside the delegate (HGNetV2's shifts after each ReLU).
    """
    scale = max(number.scale, total * FINEST)
    zero_point = round(LOW - (LOW - number.zero_point) * number.scale / scale)
    return Affine(scale, min(max(zero_point, LOW), HIGH))


def _held(node: fx.Node, codes: Mapping[str, Affine], scheme: Scheme) -> str | None:
    """The name under which the codes of a result are known: its own, or that of the clamp that is fused into it."""
    fused = node.name in scheme.static and len(node.users) == 1
    return next((n.name for n in (node, *(node.users if fused else ())) if n.name in codes), None)


def _average(_: fx.GraphModule, node: fx.Node, codes: Mapping[str, Affine], held: str) -> float:
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    return odd_scale(codes[source.name].scale, codes[held].scale, _count(node))


def _sum(graph: fx.GraphModule, node: fx.Node, codes: Mapping[str, Affine], held: str) -> float:
    if len(node.all_input_nodes) != 2:
        return codes[held].scale
    first, second = sorted(node.all_input_nodes, key=is_constant)
    a, b = codes[first.name], codes[second.name]
    return alike(a, b, codes[held], _single(graph, second, b))


def _single(graph_module: fx.GraphModule, node: fx.Node, codes: Affine) -> int | None:
    """The code of a constant that is one number."""
    if not is_constant(node) or (value := constant(graph_module, node)).numel() != 1:
        return None
    return min(max(round(value.item() / codes.scale) + codes.zero_point, LOW), HIGH)


Move = Callable[[fx.GraphModule, fx.Node, Mapping[str, Affine], str], float]
MOVES: Mapping[object, Move] = {torch.ops.aten.mean.dim: _average, torch.ops.aten.add.Tensor: _sum}


def odd_scale(source: float, scale: float, count: int) -> float:
    """The scale of an average of `count` codes of scale `source`, near `scale`, with which no average is near a tie.

    Args:
        source, scale: > 0; what a file holds of them is float32.

    Returns:
        a scale within `MOST_CHANGE`, that of the smallest denominator; `scale` itself where there is none.
    """
    exact = float(np.float32(source))
    step = exact / (count * scale)  # of the average, in its codes, for one more in the sum
    numerators = np.maximum(np.rint(step * DENOMINATORS), 1)
    near = np.abs(numerators / DENOMINATORS / step - 1) <= MOST_CHANGE
    if not near.any():
        return scale
    at = int(near.argmax())
    return exact * float(DENOMINATORS[at]) / (float(numerators[at]) * count)


def _count(node: fx.Node) -> int:
    """How many codes one average is of."""
    shape: tuple[int, ...] = node.args[0].meta["shape"]  # type: ignore[union-attr]
    dims: list[int] | None = node.args[1]  # type: ignore[assignment]
    return math.prod(shape if dims is None else [shape[dim] for dim in dims])
