"""Constant places of an axis are slices, or products with zeros and ones; both give the very numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import traced
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_lower import same
from torch import Tensor
from torch.nn import functional as F

from shrink.graph.clean import fold_constants
from shrink.graph.lower import lower
from shrink.graph.shapes import annotate_shapes

SHAPE = (1, 12, 5, 7)
MIXED = [3, 0, 11, 5, 5, 2, 9, 1]
PLACES = torch.tensor(MIXED)


def selected(function: Callable[[Tensor], Tensor], shape: tuple[int, ...] = SHAPE) -> list[str]:
    """The ops after the rewrite, which answer as before."""
    graph_module = traced(function, shape)
    fold_constants(graph_module)
    annotate_shapes(graph_module, torch.zeros(shape))
    lower(graph_module, ["selections"])
    return same(graph_module, function)


@pytest.mark.parametrize(
    ("function", "spelling"),
    [
        (lambda x: x[:, [4, 5, 6, 1, 2]], ["slice.Tensor"] * 2 + ["cat.default"]),
        (lambda x: x[:, :, [1, 2, 3]], ["slice.Tensor"]),
        (lambda x: x[..., [0, -1]], ["slice.Tensor"] * 2 + ["cat.default"]),
        (lambda x: x[:, MIXED], ["transpose.int", "linear.default", "transpose.int"]),
        (lambda x: x.index_select(1, PLACES), ["transpose.int", "linear.default", "transpose.int"]),
        (lambda x: x.flip(3), ["transpose.int", "linear.default", "transpose.int"]),
        (lambda x: x[:, :, :3].flip(-2), ["slice.Tensor"] * 4 + ["cat.default"]),
        (lambda x: x.flip([2, 3])[:, 0].flatten(1), None),
    ],
)
def test_places_are_written_without_a_selection(
    function: Callable[[Tensor], Tensor], spelling: list[str] | None
) -> None:
    found = selected(function)
    assert spelling is None or found == spelling
    assert not {"index.Tensor", "index_select.default", "flip.default"} & {*found}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, MIXED, :, [0, 1, 2, 3, 4, 5, 6, 0]],  # pairs of places
        lambda x: x[:, PLACES.reshape(2, 4)],
        lambda x: x[:, x.mean((0, 2, 3)).argsort()],
        lambda x: x.flip(0),  # images of a batch
        lambda x: F.interpolate(x, (100, 100)).flatten(1).flip(1),  # too many
        lambda x: (x > 0)[:, MIXED].float(),
    ],
)
def test_other_selections_stay(function: Callable[[Tensor], Tensor]) -> None:
    assert {"index.Tensor", "index_select.default", "flip.default"} & {*selected(function)}


@settings(max_examples=40, deadline=None)
@given(axis=st.integers(1, 3), places=st.lists(st.integers(-5, 4), min_size=1, max_size=12))
def test_any_places_are_those_that_torch_takes(axis: int, places: list[int]) -> None:
    found = selected(lambda x: x[(slice(None),) * axis + (places,)], (1, 6, 5, 8))
    assert "index.Tensor" not in found
