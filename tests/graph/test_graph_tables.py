"""Tables of floats on 8 bits: exact where codes are found, near where they are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor, nn

from shrink.graph.capture import capture
from shrink.graph.edit import constant, is_constant
from shrink.graph.tables import LEAST, grid, on_grid

SHAPE = (1, 4, 8, 8)


class Adds(nn.Module):
    """A table is added; another constant of its size is a weight."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        super().__init__()
        self.table, self.weight = nn.Parameter(torch.from_numpy(table)), nn.Parameter(torch.rand(8, 32))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.table) @ self.weight


def held(table: NDArray[np.float32], but: tuple[str, ...] = ()) -> tuple[NDArray[np.float32], int]:
    """The table in the graph after `on_grid`, and how many there are."""
    graph, count = on_grid(capture(Adds(table).eval(), SHAPE), but)
    (node,) = (n for n in graph.graph.nodes if n.target is torch.ops.aten.add.Tensor)
    (found,) = (n for n in node.args if is_constant(n))
    return constant(graph, found).detach().numpy(), count


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.float32, SHAPE, elements=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)),
    st.permutations(range(4)),
)
def test_a_table_moves_by_half_a_step_at_most_and_its_codes_are_found_again(
    table: NDArray[np.float32], order: list[int]
) -> None:
    moved, count = held(table)
    off = np.abs(moved.astype(np.float64) - table)
    axes = [tuple(other for other in range(4) if other != axis) for axis in range(1, 4)]
    every = [np.abs(table).max(others, keepdims=True).astype(np.float64) / 127 for others in axes]
    assert count == 1 and any((off <= steps * 0.5001 + 1e-30).all() for steps in every)
    for numbers in (moved, moved.transpose(order), moved[0]):
        found = grid(np.ascontiguousarray(numbers))
        assert found is not None and found.codes.dtype == np.int8
        np.testing.assert_array_equal(found.numbers, numbers)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_steps_go_along_the_axis_whose_places_differ_most(axis: int) -> None:
    shape = [1] * 4
    shape[axis] = -1
    sizes = np.geomspace(1e-3, 1e3, SHAPE[axis], dtype=np.float32).reshape(shape)
    table = np.random.default_rng(0).uniform(0.5, 1.0, SHAPE).astype(np.float32) * sizes
    moved, _ = held(table)
    np.testing.assert_allclose(moved, table, rtol=0.51 / 63)
    found = grid(moved)
    assert found is not None and found.axis == axis


def test_other_numbers_have_no_codes() -> None:
    rng = np.random.default_rng(0)
    assert grid(rng.random(SHAPE, np.float32)) is None
    moved, _ = held(rng.random(SHAPE, np.float32))
    moved[0, 3, 2, 1] = np.nextafter(moved[0, 3, 2, 1], np.float32(2))
    assert grid(moved) is None


@pytest.mark.parametrize("low", [-100.0, -1e9])
def test_a_mask_is_as_it_was(low: float) -> None:
    mask = np.random.default_rng(0).choice(np.float32([0, low]), SHAPE)
    moved, count = held(mask)
    np.testing.assert_allclose(moved, mask, rtol=2**-15)
    assert count == 1 and ((moved == 0) == (mask == 0)).all()


@pytest.mark.parametrize("low", [-np.inf, np.nan, float(torch.finfo(torch.float32).min)])
def test_numbers_that_no_code_stands_for_stay(low: float) -> None:
    table = np.zeros(SHAPE, np.float32)
    table[0, 1] = low
    moved, count = held(table)
    np.testing.assert_array_equal(moved, table)
    assert count == 0 and grid(table) is None


def test_weights_and_small_and_named_constants_stay() -> None:
    table = np.random.default_rng(0).random(SHAPE, np.float32)
    graph = capture(Adds(table).eval(), SHAPE)
    names = [node.name for node in graph.graph.nodes if is_constant(node)]
    assert held(table, tuple(names))[1] == 0
    few = table[:, :, :4, :4].repeat(2, 2).repeat(2, 3)[:, :1]  # 64 numbers
    assert few.size < LEAST and held(np.ascontiguousarray(few))[1] == 0


def test_numbers_per_channel_stay() -> None:
    """Each of them would have a step of its own."""
    channels = np.random.default_rng(0).random(LEAST, np.float32)
    assert on_grid(capture(Scales(channels).eval(), (1, 4, LEAST)), ())[1] == 0
    assert grid(_at_steps_of_their_own(channels)) is None


class Scales(nn.Module):
    def __init__(self, channels: NDArray[np.float32]) -> None:
        super().__init__()
        self.channels = nn.Parameter(torch.from_numpy(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channels


def _at_steps_of_their_own(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.round(numbers * 2**10) * np.float32(127 / 2**10)
