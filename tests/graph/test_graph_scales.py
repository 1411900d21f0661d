"""Products with a number per channel go into the weights before them, where those are all that they scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import lively, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from shrink.graph.factors import fold_scales, move_to_gates

SHAPE = (1, 3, 4, 6)
PER = torch.tensor([0.5, -2.0, 3.0, 0.0])
COLUMN = PER[:, None, None]
CONV, BARE, DEEP = (
    lively(net) for net in (nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 6, 3, groups=3))
)
LINEAR = lively(nn.Linear(6, 4))


def folded(function: Callable[[Tensor], Tensor]) -> int:
    """How many products went into weights, the answers being the same."""
    return rewritten(fold_scales, function, SHAPE)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: CONV(x) * COLUMN,
        lambda x: PER.reshape(1, 4, 1, 1) * BARE(x),
        lambda x: DEEP(x) * torch.arange(6.0)[:, None, None],
        lambda x: LINEAR(x) * PER,
        lambda x: LINEAR(x).permute(0, 3, 1, 2) * COLUMN,
        lambda x: LINEAR(x).permute(0, -1, 1, 2) * COLUMN,
        lambda x: LINEAR(x).transpose(-1, 1) * COLUMN,
        lambda x: BARE(x).flatten(2).transpose(1, 2) * PER,
        lambda x: LINEAR(x).reshape(3, 4, 4).unsqueeze(1) * PER,
        lambda x: LINEAR(x).unsqueeze(2).squeeze(0) * PER,
        lambda x: BARE(x).unflatten(2, (2, 2)) * PER[:, None, None, None],
        lambda x: BARE(x).reshape(2, 2, 4, 6) * PER[:2, None, None],  # a half of the channels alike
        lambda x: (y := LINEAR(x))[..., :2] * torch.tensor(3.0) + y[..., 2:],  # the queries of an attention
        lambda x: (y := LINEAR(x).unflatten(-1, (2, 2)).permute(3, 0, 1, 2, 4).unbind(0))[0] * PER[:2] + y[1],
        lambda x: LINEAR(x).roll(1, -1) * PER,
        lambda x: torch.relu(CONV(x)) * torch.tensor(1.5),
        lambda x: F.leaky_relu(LINEAR(x).transpose(1, 2), 0.1) * (PER.abs() + 1),
        lambda x: F.max_pool2d(CONV(x), (1, 2), 1) * (COLUMN.abs() + 1),
    ],
)
def test_weights_take_in_a_number_per_channel(function: Callable[[Tensor], Tensor]) -> None:
    assert folded(function) == 1


QUARTER = torch.tensor(0.25)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x: (LINEAR(x) @ LINEAR(x.exp()).transpose(-2, -1)) * QUARTER, 1),
        (lambda x: (x.transpose(2, 3) @ LINEAR(x)) * QUARTER, 1),  # the other side has no weights
        (lambda x: (y := LINEAR(x).split(2, -1))[0] @ y[1].transpose(2, 3) * QUARTER, 1),
        (lambda x: torch.bmm(BARE(x).flatten(2), x.reshape(1, 24, 3)) * QUARTER, 1),
        (lambda x: LINEAR(x) @ LINEAR(x).transpose(2, 3) * QUARTER * torch.tensor(2.0), 2),
        (lambda x: (y := LINEAR(x)) @ y.transpose(2, 3) * QUARTER, 0),  # would be scaled twice
        (lambda x: (y := LINEAR(x)) @ x * QUARTER + y.mean(), 0),  # read as it is, too
        (lambda x: (y := x.transpose(2, 3) @ LINEAR(x)) * QUARTER + y, 0),
        (lambda x: (x.transpose(2, 3) @ x.exp()) * QUARTER, 0),
        (lambda x: LINEAR(x) @ x * torch.arange(6.0), 0),  # a number for each column
    ],
)
def test_weights_before_a_matrix_product_take_in_a_number(function: Callable[[Tensor], Tensor], count: int) -> None:
    assert folded(function) == count


def test_several_go_in_one_after_the_other() -> None:
    assert folded(lambda x: (CONV(x) * COLUMN).flatten(2).transpose(1, 2) * PER) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x: CONV(x) * torch.arange(6.0).reshape(2, 3),  # per place
        lambda x: CONV(x) * torch.arange(3.0),  # along the width
        lambda x: LINEAR(x) * torch.arange(4.0)[:, None],  # along the height, which is as long as the channels are many
        lambda x: LINEAR(x).transpose(2, 3) * PER,  # the same after both were swapped
        lambda x: CONV(x) * torch.arange(8.0).reshape(4, 2, 1),  # per channel and row
        lambda x: (y := LINEAR(x))[..., :2] * 3 + y[..., 1:3],  # one of the two is read unscaled, too
        lambda x: torch.relu(CONV(x)) * COLUMN,
        lambda x: torch.relu(CONV(x)) * torch.tensor(-1.5),
        lambda x: torch.relu(CONV(x)) * torch.tensor(0.0),
        lambda x: F.max_pool2d(CONV(x), (1, 2), 1) * torch.tensor([1.0, 2.0]),  # along the width, after the pool
        lambda x: (y := torch.relu(CONV(x))) * torch.tensor(1.5) + y,
        lambda x: torch.relu(y := CONV(x)) * torch.tensor(1.5) + y,
        lambda x: F.relu6(CONV(x)) * torch.tensor(1.5),
        lambda x: (y := CONV(x)) * COLUMN + y,
        lambda x: (y := LINEAR(x)).transpose(1, 3) * COLUMN + y.mean(),
        lambda x: F.conv2d(x, torch.ones(4, 3, 1, 1) * x.mean()) * COLUMN,
        lambda x: F.conv2d(x, torch.ones(4, 3, 1, 1), x.mean((0, 2, 3)).repeat(2)[:4]) * COLUMN,
        lambda x: x.mean((0, 1, 2))[:4] * COLUMN,  # the constant has more dimensions
        lambda x: x * torch.arange(3.0)[:, None, None],  # there are no weights
        lambda x: CONV(x) * CONV(x),
    ],
)
def test_what_scales_something_else_stays(function: Callable[[Tensor], Tensor]) -> None:
    assert folded(function) == 0


def test_weights_that_two_layers_share_are_scaled_for_one() -> None:
    shared = lively(nn.Conv2d(3, 3, 3, padding=1))
    assert folded(lambda x: shared(shared(x) * torch.tensor([2.0, 3.0, 4.0])[:, None, None])) == 1


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_through_any_views_the_answer_stays(data: st.DataObject) -> None:
    """Whatever is done to the order of the dimensions: a scale along any of them changes no answer."""
    order = data.draw(st.permutations(range(4)))
    at = data.draw(st.integers(0, 3))
    dim = order[at]
    size = (1, 4, 4, 4)[dim]  # of LINEAR's result after the channels were cut to four: all but the first are alike

    def function(x: Tensor) -> Tensor:
        y = LINEAR(x[:, :1].expand(1, 4, 4, 6)).permute(order)
        return y * torch.arange(1.0, size + 1).reshape(-1, *[1] * (3 - at))

    assert folded(function) == (dim in (0, 3))  # the first has one number for all channels


# --- gates


def gated(function: Callable[[Tensor], Tensor]) -> int:
    """How many constants went to the smaller side of a product, the answers being the same."""
    return rewritten(move_to_gates, function, SHAPE)


def gate(x: Tensor) -> Tensor:
    return torch.sigmoid(x.mean((2, 3), keepdim=True))


def test_a_gate_takes_a_constant_factor() -> None:
    assert gated(lambda x: x * gate(x) * 0.2 + x) == 0  # a number is written as a constant first
    third, half = torch.full((1, 1, 1, 1), 1 / 3), torch.tensor(0.5)
    assert gated(lambda x: x * gate(x) * third + x) == 1
    assert gated(lambda x: half * (gate(x) * x) + x) == 1
    assert gated(lambda x: x * gate(x) * third * half + x) == 2
    assert gated(lambda x: (x * gate(x)[0]) * third) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.relu(x) * torch.tensor(0.5),  # no side is smaller
        lambda x: x * x * torch.tensor(0.5),
        lambda x: (y := x * gate(x)) * torch.tensor(0.5) + y,  # the product is read without the factor, too
        lambda x: x * gate(x) * torch.tensor([1.0, 2.0, 3.0])[:, None, None],
        lambda x: (x + gate(x)) * torch.tensor(0.5),
    ],
)
def test_other_products_stay(function: Callable[[Tensor], Tensor]) -> None:
    assert gated(function) == 0
