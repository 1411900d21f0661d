"""Windows, padding by copies and stretched values are written exactly, out of ops that runtimes have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_nets import ops
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_lower import lowered, same
from torch import Tensor
from torch.nn import functional as F

from shrink.graph.capture import capture
from shrink.graph.clean import clean
from shrink.graph.lower import lower

SIZES = st.integers(7, 12)


@settings(max_examples=25, deadline=None)
@given(
    high=SIZES, wide=SIZES, kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)), padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
)  # fmt: skip
def test_columns_of_an_image_are_slices(
    high: int, wide: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: int
) -> None:
    def function(x: Tensor) -> Tensor:
        return F.unfold(x, kernel, dilation, padding, stride)

    assert "im2col.default" not in lowered(function, "windows", (1, 3, high, wide))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5), columns=st.integers(1, 5), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)), padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    left=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)  # fmt: skip
def test_an_image_of_columns_is_a_sum(
    rows: int, columns: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    left: tuple[int, int],
) -> None:  # fmt: skip
    """Rows that no whole stride reaches stay zero."""
    places = [(n - 1) * s + k - 2 * p + over % s for n, s, k, p, over in
              zip((rows, columns), stride, kernel, padding, left, strict=True)]  # fmt: skip
    if min(places) < 1:
        return

    def function(x: Tensor) -> Tensor:
        return F.fold(x.reshape(1, 2 * kernel[0] * kernel[1], rows * columns), places, kernel, 1, padding, stride)

    found = lowered(function, "windows", (1, 2, kernel[0] * kernel[1], rows * columns))
    taken = kernel[0] >= stride[0] and kernel[1] >= stride[1]
    assert ("col2im.default" not in found) == taken


@pytest.mark.parametrize(("axis", "size", "step"), [(2, 4, 3), (3, 3, 1), (-1, 5, 5), (1, 2, 2)])
def test_windows_along_an_axis_are_slices(axis: int, size: int, step: int) -> None:
    assert "unfold.default" not in lowered(lambda x: x.unfold(axis, size, step), "windows", (1, 4, 10, 11))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (2, 0, 1, 3), (0, 0, 4, 4), (1, 2)])
def test_padding_by_copies_is_a_concatenation(mode: str, pads: tuple[int, ...]) -> None:
    shape = (1, 3, 6, 7) if len(pads) == 4 else (1, 6, 7)
    found = lowered(lambda x: F.pad(x.reshape(shape), pads, mode), "windows", (1, *shape) if len(pads) == 2 else shape)
    assert "cat.default" in found and not any("pad" in op for op in found)


@pytest.mark.parametrize(("pads", "mode"), [((5, 5, 0, 0), "reflect"), ((0, 0, 6, 5), "circular")])
def test_other_padding_stays(pads: tuple[int, ...], mode: str) -> None:
    before = len(lowered(lambda x: F.pad(x, pads, mode), "pieces", (1, 3, 7, 7)))
    assert len(lowered(lambda x: F.pad(x, pads, mode), "windows", (1, 3, 7, 7))) == before


@settings(max_examples=25, deadline=None)
@given(high=SIZES, wide=SIZES, kernel=st.integers(2, 5), stride=st.integers(1, 3), padding=st.integers(1, 2))
def test_a_padded_maximum_reads_copies_of_the_edges(
    high: int, wide: int, kernel: int, stride: int, padding: int
) -> None:
    """Values of either sign, all of one sign among them: a zero would win over these."""
    padding = min(padding, kernel // 2)

    def function(x: Tensor) -> Tensor:
        return F.max_pool2d(x - 20.0, kernel, stride, padding)

    found = lowered(function, "pool_padding", (1, 2, high, wide))
    assert "max_pool2d.default" in found
    pooled = [((size + 2 * padding - kernel) // stride + 1, padding) for size in (high, wide)]
    assert ("cat.default" in found) == (pooled != [same_windows(size, kernel, stride) for size in (high, wide)])


def same_windows(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """How many windows TensorFlow's padding "SAME" has, and by how much the first reaches over the edge."""
    first_numbers = range(0, size, stride)
    return len(first_numbers), max(first_numbers[-1] + kernel - size, 0) // 2


@pytest.mark.parametrize("options", [{"ceil_mode": True}, {"dilation": 2}])
def test_other_padded_maxima_stay(options: dict[str, Any]) -> None:
    found = lowered(lambda x: F.max_pool2d(x, 3, 2, 1, **options), "pool_padding", (1, 2, 9, 9))
    assert "cat.default" not in found


def relative(x: Tensor) -> Tensor:
    """Relative positions as BoTNet writes them: both are stretched, and one is turned."""
    a, b = x.reshape(3, 6, 1, 6).expand(-1, -1, 6, -1), (2 * x).reshape(3, 6, 1, 6).expand(-1, -1, 6, -1)
    return (a.transpose(2, 3) + b.permute(0, 2, 3, 1)).reshape(1, -1)


def test_a_turn_of_a_stretched_value_leaves_nothing_to_stretch() -> None:
    found = ops(capture(relative_module(relative), (1, 3, 6, 6)))
    assert "expand.default" not in found


def relative_module(function: Callable[[Tensor], Tensor]) -> torch.nn.Module:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return Net()


@pytest.mark.parametrize(
    "function",
    [
        relative,
        lambda x: x.mean(1, keepdim=True).expand(1, 5, 6, 6).permute(0, 2, 3, 1).flatten(1),
        lambda x: x.mean(1, keepdim=True).expand(1, 5, 6, 6).transpose(1, -1),
        lambda x: x.mean(1, keepdim=True).expand(1, 5, 6, 6).permute(0, 3, 1, 2) * 2.0,
    ],
)
@pytest.mark.parametrize("rule", ["stretch", "pieces"])
def test_turns_and_stretches_are_exact(function: Callable[[Tensor], Tensor], rule: str) -> None:
    graph_module = capture(relative_module(function), (1, 3, 6, 6))
    clean(graph_module)
    lower(graph_module, [rule])
    found = same(graph_module, function)
    assert rule != "stretch" or "expand.default" not in found


@settings(max_examples=25, deadline=None)
@given(high=SIZES, wide=SIZES, rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_an_adaptive_maximum_is_a_pool_over_equal_windows_and_else_slices(
    high: int, wide: int, rows: int, columns: int
) -> None:
    module = relative_module(lambda x: F.adaptive_max_pool2d(x, (rows, columns)))
    graph_module = capture(module, (1, 3, high, wide))
    same(graph_module, module)
    found = ops(graph_module)
    assert "adaptive_max_pool2d.default" not in found
    assert ("max_pool2d.default" in found) == (high % rows == 0 and wide % columns == 0)


@settings(max_examples=25, deadline=None)
@given(kernel=st.integers(1, 3), stride=st.integers(1, 3), dilation=st.integers(2, 3), size=st.integers(7, 11))
def test_a_maximum_of_numbers_that_lie_apart_is_one_of_slices(
    kernel: int, stride: int, dilation: int, size: int
) -> None:
    def function(x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel, stride, 0, dilation)

    assert "max_pool2d.default" not in lowered(function, "windows", (1, 3, size, size + 1))
