"""What two values that are viewed alike give is computed before the view."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import ops, traced
from test_graph_lower import lowered
from torch import Tensor

SHAPE = (1, 6, 4, 5)
Function = Callable[[Tensor], Tensor]


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: x[:, 1] + x[:, -2], ["slice.Tensor", "slice.Tensor", "add.Tensor", "reshape.default"]),
        (lambda x: x.flatten(2) * x.exp().flatten(2), ["exp.default", "mul.Tensor", "reshape.default"]),
        (lambda x: torch.sub(x.reshape(1, 2, 3, 4, 5), x.exp().reshape(1, 2, 3, 4, 5), alpha=2), None),
        (lambda x: x.reshape(1, 2, 3, 4, 5)[:, :, 0] + x.reshape(1, 2, 3, 4, 5)[:, :, 2], None),
        (lambda x: x[:, :, 1] + x[:, :, 2] - x[:, :, -1], None),
        (lambda x: x.exp()[..., 0] / x.exp()[..., 1], None),
        (lambda x: torch.maximum(x[:, 0], x[:, 1]), None),
    ],
)
def test_what_is_viewed_alike_is_viewed_after(function: Function, wanted: list[str] | None) -> None:
    found = lowered(function, "views", SHAPE)
    assert found == wanted or (wanted is None and found[-1] == "reshape.default" and "select.int" not in found), found


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, :1].flatten(2) * x.flatten(2),  # one is stretched
        lambda x: x[:, 0] + x[:, 1:].mean(1),  # one is no view
        lambda x: x.reshape(1, 6, 20) + x.transpose(2, 3).reshape(1, 6, 20),  # from two shapes
        lambda x: x.transpose(2, 3).flatten(2) + 1,
    ],
)
def test_what_is_viewed_otherwise_stays(function: Function) -> None:
    assert lowered(function, "views", SHAPE) == ops(traced(function, SHAPE))
