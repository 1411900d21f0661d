"""Scales and shifts before weights go into them, where all that reads them has weights and no border would tell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from graph_nets import lively, rewritten, traced
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from shrink.graph.norms import fold_norms, fold_shifts
from shrink.graph.shapes import annotate_shapes

SHAPE = (1, 4, 4, 6)
SCALE, SHIFT = torch.tensor([0.5, -2.0, 3.0, 0.0]), torch.tensor([1.0, 0.0, -4.0, 0.25])
COLUMN, OFFSET = SCALE[:, None, None], SHIFT[:, None, None]
CONV, PADDED, GROUPS, DEEP = (
    lively(net)
    for net in (
        nn.Conv2d(4, 5, 3, 2, bias=False),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.Conv2d(4, 6, (1, 3), groups=2),
        nn.Conv2d(4, 8, 3, groups=4, bias=False),
    )
)
LINEAR, WIDE, BARE = lively(nn.Linear(6, 5)), lively(nn.Linear(4, 3)), lively(nn.Linear(6, 5, bias=False))
NORM = lively(nn.LayerNorm(6))


def folded(function: Callable[[Tensor], Tensor]) -> int:
    """How many scales and shifts went into weights, the answers being the same."""
    return rewritten(fold_norms, function, SHAPE)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x: CONV(x * COLUMN + OFFSET), 2),
        (lambda x: GROUPS(OFFSET + x * COLUMN), 2),
        (lambda x: DEEP(x * COLUMN + OFFSET), 2),
        (lambda x: PADDED(x * COLUMN), 1),
        (lambda x: WIDE((x * COLUMN + OFFSET).permute(0, 2, 3, 1)), 2),
        (lambda x: WIDE((x.flatten(2).transpose(1, 2) + SHIFT).reshape(2, 12, 4)), 1),
        (lambda x: LINEAR(NORM(x)), 1),
        (lambda x: BARE((y := NORM(x)).roll(1, 2)) + LINEAR(y[:, :2]).mean(1), 1),
        (lambda x: CONV(y := x * COLUMN)[:, :4] + WIDE(y.permute(0, 2, 3, 1)).mean(), 1),
        (lambda x: F.linear((x + OFFSET).permute(0, 2, 3, 1)[..., 1:3], torch.ones(3, 2)), 1),
        (lambda x: CONV(torch.cat([*(x * COLUMN).split(2, 1)][::-1], 1)), 1),
    ],
)
def test_weights_take_in_what_they_read(function: Callable[[Tensor], Tensor], count: int) -> None:
    assert folded(function) == count


def test_a_layer_norm_keeps_its_scale() -> None:
    graph_module = traced(lambda x: LINEAR(NORM(x)), SHAPE)
    annotate_shapes(graph_module, torch.zeros(SHAPE))
    fold_norms(graph_module)
    norm = next(node for node in graph_module.graph.nodes if "layer_norm" in node.name)
    assert norm.args[2] is not None and norm.args[3] is None
    assert fold_norms(graph_module) == 0


def test_affines_alone_leave_a_layer_norm_its_shift() -> None:
    fold_affines = partial(fold_norms, layer_norms=False)
    assert rewritten(fold_affines, lambda x: LINEAR(NORM(x)), SHAPE) == 0
    assert rewritten(fold_affines, lambda x: CONV(x * COLUMN + OFFSET) + LINEAR(NORM(x)).mean(), SHAPE) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x: PADDED(x + OFFSET),  # the border is zeros, not the shift
        lambda x: LINEAR(y := NORM(x)) + y.mean(),
        lambda x: LINEAR(torch.relu(NORM(x))),
        lambda x: NORM(x),
        lambda x: LINEAR(x * COLUMN),  # along another dimension than that of the weights
        lambda x: WIDE(F.pad((x + OFFSET).permute(0, 2, 3, 1), (0, 0, 1, 1))),
        lambda x: F.conv2d(x, (x * COLUMN).reshape(4, 4, 3, 2)[..., :1]),  # it is the weight
        lambda x: F.linear(x * torch.arange(6.0), torch.ones(5, 6) * x.mean()),
        lambda x: CONV(x * x.mean((2, 3), keepdim=True)),
    ],
)
def test_what_others_read_stays(function: Callable[[Tensor], Tensor]) -> None:
    assert folded(function) == 0


def test_weights_that_two_layers_share_are_scaled_for_one() -> None:
    shared = lively(nn.Linear(6, 6))
    assert folded(lambda x: shared(shared(x * torch.arange(6.0)) + torch.arange(6.0))) == 2


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_through_any_views_the_answer_stays(data: st.DataObject) -> None:
    """Whatever is done to the order of the dimensions: a scale and shift along any of them change no answer."""
    order = data.draw(st.permutations(range(4)).filter(lambda order: order[-1] != 0))
    dim = data.draw(st.integers(1, 3))
    numbers = torch.arange(1.0, 5).reshape(-1, *[1] * (3 - dim))

    def function(x: Tensor) -> Tensor:
        return WIDE((x[..., :4] * numbers + numbers).permute(order).reshape(-1, 2, 4))

    assert folded(function) == 2 * (order[-1] == dim)


# --- shifts by one number


def shifted(function: Callable[[Tensor], Tensor]) -> int:
    """How many shifts went into weights, the answers being the same."""
    return rewritten(fold_shifts, function, SHAPE)


THIRD = torch.tensor(1 / 3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: CONV(x.relu() + THIRD),
        lambda x: GROUPS(THIRD.reshape(1, 1, 1) + x),
        lambda x: LINEAR(x + THIRD),
        lambda x: WIDE((x + THIRD).permute(0, 2, 3, 1)),
        lambda x: CONV(y := x + THIRD).mean() + DEEP(y),
        lambda x: BARE(x.mean((1, 2)) + THIRD),
    ],
)
def test_weights_take_in_a_shift(function: Callable[[Tensor], Tensor]) -> None:
    assert shifted(function) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: PADDED(x + THIRD),  # the border is zeros, not the shift
        lambda x: CONV(y := x + THIRD).mean() + y,
        lambda x: LINEAR((x + THIRD).relu()),
        lambda x: CONV(x + OFFSET),
        lambda x: CONV(x * THIRD),
    ],
)
def test_other_sums_stay(function: Callable[[Tensor], Tensor]) -> None:
    assert shifted(function) == 0
