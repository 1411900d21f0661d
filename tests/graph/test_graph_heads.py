"""Two linears of one value, added up, are one; whatever else is added stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import lively, rewritten
from torch import Tensor, nn
from torch.nn import functional as F

from shrink.graph.heads import merge_heads

SHAPE = (1, 4, 3, 6)
ONE, OTHER, BARE, NARROW = (
    lively(nn.Linear(6, width, bias=bias), seed)
    for seed, (width, bias) in enumerate([(5, True), (5, True), (5, False), (1, True)])
)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x: (ONE(x) + OTHER(x)) / 2, 1),
        (lambda x: ONE(x) - OTHER(x), 1),
        (lambda x: BARE(x) - ONE(x), 1),
        (lambda x: BARE(x) + BARE(x), 1),
        (lambda x: ONE(x) + OTHER(x) + BARE(x), 2),
        (lambda x: (y := ONE(x)) + y, 1),
        (lambda x: ONE(x) + OTHER(x.relu()), 0),
        (lambda x: ONE(x) + NARROW(x), 0),  # a number for all classes
        (lambda x: (y := ONE(x)) + OTHER(x) + y.relu(), 0),  # whose own answer is asked for, too
        (lambda x: F.linear(x, x.mean() * ONE.weight) + OTHER(x), 0),  # weights that depend on the image
        (lambda x: torch.add(ONE(x), OTHER(x), alpha=2), 0),
        (lambda x: ONE(x) + 1.0, 0),
        (lambda x: ONE(x) * OTHER(x), 0),
    ],
)
def test_two_heads_are_one(function: Callable[[Tensor], Tensor], count: int) -> None:
    assert rewritten(merge_heads, function, SHAPE) == count
