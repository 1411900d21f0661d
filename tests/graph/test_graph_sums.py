"""Sums over an axis of few places are sums of what is there; what was only stacked for it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_graph_lower import lowered
from torch import Tensor

SHAPE = (1, 6, 5, 7)
Function = Callable[[Tensor], Tensor]


def summed(function: Function) -> list[str]:
    return lowered(function, "few_terms", SHAPE)


def weighed(x: Tensor) -> Tensor:
    """As SKNet selects."""
    both = torch.stack([x, x.relu()], 1)
    places = both.sum(1).mean((2, 3), keepdim=True).reshape(1, 2, 3, 1, 1)
    return (both * places.repeat(1, 1, 2, 1, 1).softmax(1)).sum(1)


def split(x: Tensor) -> Tensor:
    """As ResNeSt does."""
    parts = x.reshape(1, 2, 3, 5, 7)
    return (parts * parts.sum(1, keepdim=True).mean((3, 4), keepdim=True)).sum(dim=1)


@pytest.mark.parametrize(
    ("function", "spelling"),
    [
        (
            lambda x: torch.stack([x, x.relu(), x * x], 2).sum(2),
            ["relu.default", "mul.Tensor", "add.Tensor", "add.Tensor"],
        ),
        (lambda x: x.reshape(1, 3, 2, 5, 7).sum(-4), ["slice.Tensor"] * 3 + ["add.Tensor"] * 2),
        (lambda x: x.reshape(1, 2, 3, 35).sum(2, keepdim=True), None),
        (lambda x: torch.stack([x, x.relu()]).sum(0), ["relu.default", "add.Tensor"]),
        (lambda x: x.reshape(2, 3, 5, 7).sum(1), None),
        (weighed, None),
        (split, None),
    ],
)
def test_it_is_a_sum_of_parts(function: Function, spelling: list[str] | None) -> None:
    ops = summed(function)
    assert "sum.dim_IntList" not in ops and "stack.default" not in ops
    assert spelling is None or sorted(ops) == sorted(spelling)


def test_a_product_that_others_read_is_made_once() -> None:
    ops = summed(lambda x: (y := torch.stack([x, x.relu()], 1) * x.unsqueeze(1).exp()).sum(1) + y.amax(1))
    assert ops.count("mul.Tensor") == 1 and ops.count("select.int") == 2


@pytest.mark.parametrize("act", ["silu", "hardswish", "mish"])
def test_a_product_that_another_rule_wrote_is_selected_from(act: str) -> None:
    """What it is of has no shape yet."""

    def function(x: Tensor) -> Tensor:
        parts: Tensor = getattr(torch.nn.functional, act)(x.reshape(1, 2, 3, 5, 7)).sum(1)
        return parts

    assert "sum.dim_IntList" not in lowered(function, "silu hard_swish hard_sigmoid activations few_terms", SHAPE)


@pytest.mark.parametrize(
    ("function", "spelling"),
    [
        (lambda x: torch.stack([x, x.relu(), x * x]).mean(0), ["relu", "mul", "add", "add", "mul"]),
        (lambda x: torch.stack([x.relu(), x], 3).mean(-2, keepdim=True), ["relu", "add", "mul", "unsqueeze"]),
        (lambda x: torch.stack([x, x.relu()], -1).mean((4,)), ["relu", "add", "mul"]),
        (lambda x: torch.stack([x.relu()]).mean(0).exp(), ["relu", "exp"]),
    ],
)
def test_an_average_of_what_was_stacked_is_a_sum_of_parts(function: Function, spelling: list[str]) -> None:
    assert sorted(op.split(".")[0] for op in summed(function)) == sorted(spelling)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean((2, 3)),
        lambda x: torch.stack([x, x.relu()], 1).mean(2),  # another axis
        lambda x: torch.stack([x, x.relu()], 1).mean((1, 2)),
        lambda x: torch.stack([x] * 5, 1).mean(1),
        lambda x: x.reshape(1, 2, 3, 35).mean(1),
    ],
)
def test_other_averages_stay(function: Function) -> None:
    assert "mean.dim" in summed(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(1),  # many places
        lambda x: x.reshape(1, 6, 35, 1).sum(3),  # one place, the last
        lambda x: x.reshape(1, 105, 2).sum(2),  # the last axis, whose numbers lie side by side
        lambda x: x.reshape(1, 2, 3, 35).sum((1, 2)),
        lambda x: x.sum((2, 3)),
    ],
)
def test_other_sums_stay(function: Function) -> None:
    assert "sum.dim_IntList" in summed(function)
