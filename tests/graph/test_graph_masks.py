"""Masks leave zeros behind a softmax; what only looks like a mask stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import answer, images, rewritten, traced
from torch import Tensor

from shrink.graph.clean import fold_constants
from shrink.graph.masks import deepen_masks
from shrink.graph.shapes import annotate_shapes

SHAPE = (2, 4, 6, 6)  # windows, heads, rows, columns
OTHERS = torch.zeros(2, 1, 6, 6)
OTHERS[:, :, :3, 3:] = OTHERS[:, :, 3:, :3] = -100.0  # what lies in another window
BIASED = OTHERS + torch.linspace(-4, 4, 6)


def swin(x: Tensor) -> Tensor:
    return (x.reshape(1, *SHAPE) + OTHERS).reshape(SHAPE).softmax(-1)


@pytest.mark.parametrize(
    "function",
    [
        swin,
        lambda x: (OTHERS + x).softmax(3),
        lambda x: (x + BIASED).softmax(-1),
        lambda x: (x + OTHERS[0, 0, :1]).softmax(-1),
    ],
)
def test_a_mask_is_deepened(function: Callable[[Tensor], Tensor]) -> None:
    assert rewritten(deepen_masks, function, SHAPE) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x + OTHERS).exp(),
        lambda x: (x + OTHERS).softmax(-2),  # of other rows than those the mask was looked at by
        lambda x: (y := x + OTHERS).softmax(-1) + y,
        lambda x: (x + OTHERS).transpose(-1, -2).softmax(-1),
        lambda x: (x + OTHERS).reshape(2, 4, 12, 3).softmax(-1),
        lambda x: (x + OTHERS / 2).softmax(-1),  # -50 is a number like others
        lambda x: (x + torch.full((6,), -100.0)).softmax(-1),  # a whole row: nothing is left out
        lambda x: (x + OTHERS[..., :1]).softmax(-1),
        lambda x: (x + torch.tensor(-100.0)).softmax(-1),
        lambda x: (x + x).softmax(-1),
    ],
)
def test_what_is_no_mask_stays(function: Callable[[Tensor], Tensor]) -> None:
    assert rewritten(deepen_masks, function, SHAPE) == 0


def test_no_subnormal_number_is_left() -> None:
    graph_module = traced(swin, SHAPE)
    fold_constants(graph_module)
    annotate_shapes(graph_module, torch.zeros(SHAPE))
    image = 3 * images(1, SHAPE, seed=0)[0]
    least = torch.finfo(torch.float32).tiny

    def subnormal(values: Tensor) -> int:
        return int(((values > 0) & (values < least)).sum())

    assert subnormal(answer(graph_module, image)) > 50
    deepen_masks(graph_module)
    graph_module.recompile()
    assert subnormal(answer(graph_module, image)) == 0
