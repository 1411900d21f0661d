"""The ends of a clamp are those of its values, however the call was written."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from graph_nets import traced
from torch import Tensor
from torch.nn import functional as F

from shrink.graph.clamps import CLAMPS, clamp_ends


@pytest.mark.parametrize(
    ("function", "ends"),
    [
        (torch.relu, (0.0, math.inf)),
        (lambda x: F.hardtanh(x, 0.0, 6.0), (0.0, 6.0)),
        (lambda x: F.hardtanh(x, -0.5), (-0.5, 1.0)),
        (lambda x: F.hardtanh(x), (-1.0, 1.0)),
    ],
)
def test_the_ends_of_a_clamp(function: Callable[[Tensor], Tensor], ends: tuple[float, float]) -> None:
    (node,) = (node for node in traced(function, (3,)).graph.nodes if node.target in CLAMPS)
    assert clamp_ends(node) == ends
    values = function(torch.linspace(-9, 9, 19))
    assert float(values.min()) == ends[0] and float(values.max()) == min(ends[1], 9.0)
