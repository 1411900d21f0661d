"""Clamps, which runtimes compute together with the op before them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

CLAMPS: Mapping[Any, tuple[float, float]] = {aten.relu.default: (0.0, math.inf), aten.hardtanh.default: (-1.0, 1.0)}
"""Op -> its ends, where a node gives none."""


def clamp_ends(node: fx.Node) -> tuple[float, float]:
    """Between which numbers a clamp keeps its values."""
    given: tuple[Any, ...] = node.args[1:]
    low, high = given + CLAMPS[node.target][len(given) :]
    return low, high
