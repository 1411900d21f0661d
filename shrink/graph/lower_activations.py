"""Rewrites of activations, clamps and powers that litert-torch writes with comparisons and selections.

XNNPACK has no SELECT, so that each cut the graph in two; it has EXP, LOG and LOGISTIC. Integer kernels have fewer ops
still. All are exact but for the last bits of a float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from shrink.graph.clamps import clamp_ends
from shrink.graph.edit import constant, is_constant
from shrink.graph.scribe import Scribe

aten = torch.ops.aten
SELU = (1.6732632423543772, 1.0507009873554805)  # alpha and scale, Klambauer et al. 2017
FUSED_CLAMPS = ((0.0, 6.0), (-1.0, 1.0))
FARTHEST = 16.0  # end that is taken from all numbers and added again; of larger ones a float32 would lose small numbers
MOST_FACTORS = 4  # of a power that is written as a product


def _elu(write: Scribe, x: fx.Node, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> fx.Node:
    """relu(x) + alpha (exp(min(x, 0)) - 1)."""
    positive = write.relu(x)
    negative = write.add(write(aten.exp.default, write.mul(write.sub(x, positive), input_scale)), -1.0)
    return write.mul(write.add(positive, write.mul(negative, alpha)), scale)


def elu(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Clevert et al. 2016."""
    args: tuple[Any, ...] = node.args
    return _elu(Scribe(graph_module, node), *args)


def selu(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """An ELU with the numbers of Klambauer et al. 2017."""
    x: Any = node.args[0]
    return _elu(Scribe(graph_module, node), x, *SELU)


def celu(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """relu(x) + alpha (exp(min(x, 0) / alpha) - 1), Barron 2017."""
    args: tuple[Any, ...] = node.args
    alpha = float(args[1]) if len(args) > 1 else 1.0
    return _elu(Scribe(graph_module, node), args[0], alpha, 1.0, 1.0 / alpha)


def mish(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x tanh(softplus(x)) = x s (2 - s) / (1 + (1 - s)^2) with s = sigmoid(x); Misra 2019.

    The quotient is a product with the square of 1 / sqrt: integer kernels have no division.
    """
    x: Any = node.args[0]
    write = Scribe(graph_module, node)
    s = write(aten.sigmoid.default, x)
    rest = write.add(write.mul(s, -1.0), 1.0)
    root = write(aten.rsqrt.default, write.add(write.mul(rest, rest), 1.0))
    share = write.mul(write.mul(s, write.add(rest, 1.0)), write.mul(root, root))
    return write.mul(x, share)


def _log_one_plus_exp(write: Scribe, x: fx.Node) -> fx.Node:
    """relu(x) + log(1 + exp(-|x|)), which overflows nowhere."""
    decay = write(aten.exp.default, write.mul(write(aten.abs.default, x), -1.0))
    return write.add(write.relu(x), write(aten.log.default, write.add(decay, 1.0)))


def softplus(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """log(1 + exp(beta x)) / beta; x itself beyond a threshold, where the two differ by less than e^-threshold."""
    args: tuple[Any, ...] = node.args
    beta, threshold = args[1:] + (1.0, 20.0)[len(args) - 1 :]
    if threshold < 15:  # then they do differ
        return None
    write = Scribe(graph_module, node)
    return write.mul(_log_one_plus_exp(write, write.mul(args[0], float(beta))), 1.0 / beta)


def log_sigmoid(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """-log(1 + exp(-x))."""
    x: Any = node.args[0]
    write = Scribe(graph_module, node)
    return write.mul(_log_one_plus_exp(write, write.mul(x, -1.0)), -1.0)


def soft_shrink(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """relu(x - by) - relu(-x - by)."""
    args: tuple[Any, ...] = node.args
    by = float(args[1]) if len(args) > 1 else 0.5
    write = Scribe(graph_module, node)
    below = write.relu(write.add(write.mul(args[0], -1.0), -by))
    return write.sub(write.relu(write.add(args[0], -by)), below)


def hard_shrink(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x, but 0 within so much of it."""
    args: tuple[Any, ...] = node.args
    by = float(args[1]) if len(args) > 1 else 0.5
    write = Scribe(graph_module, node)
    return _or_number(write, write(aten.gt.Scalar, write(aten.abs.default, args[0]), by), args[0], 0.0)


def threshold(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x where it is larger than a number, and another number elsewhere."""
    args: tuple[Any, ...] = node.args
    x, least, other = args
    write = Scribe(graph_module, node)
    return _or_number(write, write(aten.gt.Scalar, x, least), x, float(other))


def _or_number(write: Scribe, where: fx.Node, x: fx.Node, number: float) -> fx.Node:
    """Chosen from two values of one shape: litert-torch 0.10 fails to stretch a number beside codes."""
    return write(aten.where.self, where, x, write.add(write.mul(x, 0.0), number))


def prelu(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """relu(x) + slope min(x, 0), for runtimes without one; He et al. 2015."""
    x, slope = node.args
    assert isinstance(x, fx.Node) and isinstance(slope, fx.Node)
    if not is_constant(slope):
        return None
    numbers = constant(graph_module, slope)
    shape = [1] * len(node.meta["shape"])
    shape[min(1, len(shape) - 1)] = numbers.numel()
    write = Scribe(graph_module, node)
    positive = write.relu(x)
    return write.add(positive, write.mul(write.sub(x, positive), write.held(numbers.reshape(shape))))


def one_sided(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A clamp with one end as a relu: a maximum of codes is none of XNNPACK's ops."""
    args: tuple[Any, ...] = node.args
    ends = (None, *args[1:]) if node.target is aten.clamp_max.default else args[1:]
    low, high = (*ends, None, None)[:2]
    low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
    end = high if low is None else low
    if (low is None) == (high is None) or node.meta["dtype"] is not torch.float32 or not abs(end) <= FARTHEST:
        return None
    write = Scribe(graph_module, node)
    if high is None:
        return write.add(write.relu(write.add(args[0], -float(low))), float(low))
    below = write.relu(write.add(write.mul(args[0], -1.0), float(high)))
    return write.add(write.mul(below, -1.0), float(high))


def odd_clamp(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A clamp between other ends than those that runtimes fuse into the op before as a stretched and moved relu6.

    XNNPACK takes no RELU_0_TO_1 at all, and of codes neither MINIMUM nor MAXIMUM.
    """
    x: Any = node.args[0]
    low, high = clamp_ends(node)
    if (low, high) in FUSED_CLAMPS or not abs(low) <= FARTHEST or not math.isfinite(high):
        return None
    write, width = Scribe(graph_module, node), (high - low) / 6
    six = write(aten.hardtanh.default, write.mul(write.add(x, -low), 1 / width), 0.0, 6.0)
    return write.add(write.mul(six, width), low)


ROOTS = {0.5: aten.sqrt.default, -0.5: aten.rsqrt.default}


def power(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """x to a small whole number as a product, to a broken one as exp(p log x): XNNPACK has no POW.

    Of what is negative, a broken power is no number, and so is the logarithm.
    """
    x, exponent = node.args
    assert isinstance(x, fx.Node)
    if not isinstance(exponent, int | float) or node.meta["dtype"] is not torch.float32:
        return None
    write = Scribe(graph_module, node)
    if exponent in ROOTS:
        return write(ROOTS[exponent], x)
    if exponent != int(exponent):
        return write(aten.exp.default, write.mul(write(aten.log.default, x), float(exponent)))
    if not 2 <= exponent <= MOST_FACTORS:
        return None
    found = x
    for _ in range(int(exponent) - 1):
        found = write.mul(found, x)
    return found


def log_sum_exp(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """max + log(sum(exp(x - max)))."""
    args: tuple[Any, ...] = node.args
    x, axes, keep = (*args, False)[:3]
    return _log_sum_exp(Scribe(graph_module, node), x, axes) if keep else None


def _log_sum_exp(write: Scribe, x: fx.Node, axes: list[int]) -> fx.Node:
    most = write(aten.amax.default, x, axes, True)
    total = write(aten.sum.dim_IntList, write(aten.exp.default, write.sub(x, most)), axes, True)
    return write.add(write(aten.log.default, total), most)


def log_softmax(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x - log(sum(exp(x))): XNNPACK has no LOG_SOFTMAX, which in integers has one scale for all models."""
    args: tuple[Any, ...] = node.args
    write = Scribe(graph_module, node)
    return write.sub(args[0], _log_sum_exp(write, args[0], [args[1]]))
