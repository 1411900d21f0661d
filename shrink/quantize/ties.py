"""Keeps averages of codes away from ties, so that every processor rounds them alike.

An average of codes is a sum times a factor, rounded. The sum is an integer and the same everywhere; the factor is a
float32, and kernels for x86 and ARM multiply by it in different ways. In the demo CNN a sum of 903 came to 117.50001,
which XNNPACK rounds to 118 on x86 and to 117 on a Cortex-A72. Where the factor is a fraction with an odd denominator q,
no sum comes nearer to a half than 1 / (2 q), and the last bit of a float32 decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import fx

from shrink.quantize.codes import Affine
from shrink.quantize.scheme import Scheme

LARGEST = 4095  # denominator: then ties are 1.2e-4 away, four times what float32 can be off at 255
MOST_CHANGE = 2e-4  # of a scale: at its far end a range moves by a twentieth of a code
DENOMINATORS = np.arange(1, LARGEST + 1, 2)


def apart_from_ties(graph: fx.Graph, codes: Mapping[str, Affine], scheme: Scheme) -> dict[str, Affine]:
    """The codes, with the scales of averages moved a little; what is tied to one moves with it.

    Args:
        graph: with shapes in its meta.
        codes: node name -> scale and zero point of its output.
        scheme: what is tied, and which ranges are fixed: those stay.
    """
    found = dict(codes)
    for node in graph.nodes:
        if node.target is not torch.ops.aten.mean.dim or node.name not in found or node.args[0].name not in found:
            continue
        source, group = node.args[0], _group(node.name, scheme.tied)
        if source.name in group or group & scheme.fixed.keys():
            continue
        scale = odd_scale(found[source.name].scale, found[node.name].scale, _count(node))
        found.update({name: replace(found[name], scale=scale) for name in group if name in found})
    return found


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


def _group(name: str, pairs: Collection[tuple[str, str]]) -> set[str]:
    """All names that must share their scale with this one."""
    group, before = {name}, 0
    while len(group) != before:
        before = len(group)
        group |= {one for pair in pairs if group & set(pair) for one in pair}
    return group
