"""Large constants that are added, multiplied or joined, in 8 bits: position biases and masks.

In some transformers they take as many bytes as the weights. As those, they are given a step for each place along one
axis, such as a head or a token, and their numbers are moved to multiples of it. Whoever writes the graph then finds
codes that stand for them to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from shrink.graph.edit import add_constant, constant, copied, is_constant

aten = torch.ops.aten
READERS = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.cat.default}
LEAST = 256  # numbers in a constant below which what widens it takes about as many bytes as fewer bits save
EACH = 16  # numbers that share a step, at least
HIGH = 127
MOST, LITTLE = 2.0**100, 2.0**-100  # numbers beyond which products are inexact; what is below counts as 0
STEP_BITS = 16  # of a step's fraction: with the 7 of a code they fit into the 24 of a float, so that products are exact


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A table as codes.

    Attributes:
        codes: int8, of the table's shape, -127 to 127.
        steps: float32 (n,), of every place along `axis`.
        axis: of the table, n long.
    """

    codes: NDArray[np.int8]
    steps: NDArray[np.float32]
    axis: int

    @property
    def broadcast_steps(self) -> NDArray[np.float32]:
        """The steps in a shape to multiply the codes with."""
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return self.steps.reshape(shape)

    @property
    def numbers(self) -> NDArray[np.float32]:
        """What the codes stand for, float32."""
        return self.codes * self.broadcast_steps


def on_grid(graph_module: fx.GraphModule, but: Collection[str]) -> tuple[fx.GraphModule, int]:
    """A copy whose tables are held by 8 bits, and how many there are; `but` are names of constants that stay."""
    result, count = copied(graph_module), 0
    for node in list(result.graph.nodes):
        if not is_constant(node) or node.name in but or any(user.target not in READERS for user in node.users):
            continue
        held = constant(result, node).detach()
        axes = [axis for axis in _axes(held.shape) if held.shape[axis] > 1]
        if axes and held.dtype is torch.float32 and held.numel() >= LEAST and _fits(held.numpy()):
            with result.graph.inserting_before(node):
                new = add_constant(result, f"{node.name}_table", torch.from_numpy(_closest(held.numpy(), axes)))
            node.replace_all_uses_with(new)
            count += 1
    result.graph.eliminate_dead_code()
    result.recompile()
    return result, count


def grid(numbers: NDArray[np.float32]) -> Grid | None:
    """The codes that stand for exactly these numbers, with steps along any one axis; None if none do."""
    if numbers.size < LEAST or not _fits(numbers):
        return None
    every = (_nearest(numbers, axis) for axis in _axes(numbers.shape))
    return next((found for found in every if np.array_equal(found.numbers, numbers)), None)


def _fits(numbers: NDArray[np.float32]) -> bool:
    """Whether codes can stand for such numbers; for one that is infinite, or might become so, none do."""
    return bool(np.abs(numbers).max() <= MOST)


def _axes(shape: Sequence[int]) -> list[int]:
    """Those along which steps are few: a number per channel would get one of its own."""
    return [axis for axis, size in enumerate(shape) if size * EACH <= math.prod(shape)]


def _closest(numbers: NDArray[np.float32], axes: Sequence[int]) -> NDArray[np.float32]:
    """The numbers at steps along the axis that changes them least: positions differ most from channel to channel."""
    every = [_nearest(numbers, axis).numbers for axis in axes]
    return min(every, key=lambda moved: float(np.square(moved - numbers, dtype=np.float64).sum()))


def _nearest(numbers: NDArray[np.float32], axis: int) -> Grid:
    others = tuple(other for other in range(numbers.ndim) if other != axis)
    largest = np.abs(numbers).max(others, keepdims=True).astype(np.float64)
    fraction, exponent = np.frexp(largest / HIGH)
    steps = np.ldexp(np.ceil(np.ldexp(fraction, STEP_BITS)), exponent - STEP_BITS)
    steps = np.where(largest > LITTLE, steps, 1.0).astype(np.float32)
    return Grid(np.rint(numbers / steps).astype(np.int8), steps.reshape(-1), axis)
