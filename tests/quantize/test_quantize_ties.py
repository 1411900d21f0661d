"""Averages of codes lie away from ties: checked with fractions, which round nothing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from quantize_graphs import TFLITE, graph_of, images, plan_of, scheme_of
from torch import Tensor, nn

from shrink.quantize.codes import HIGH, LOW, Affine, affine
from shrink.quantize.ranges import Range
from shrink.quantize.ties import MOST_CHANGE, apart_from_ties, coarse, odd_scale

FLOAT32 = 2.0**-23  # a sum times a factor: the factor and the product are each rounded once


def nearest_tie(source: float, scale: float, count: int) -> float:
    """How near any average of int8 codes, in codes of float32 scales, comes to a half."""
    step = Fraction(float(np.float32(source))) / Fraction(float(np.float32(scale))) / count
    most = min(255 * count, int(255 / step))
    return float(min(abs(step * total % 1 - Fraction(1, 2)) for total in range(most + 1)))


@pytest.mark.parametrize("count", [4, 16, 49, 64, 196])
def test_no_average_of_any_codes_is_near_a_tie(count: int) -> None:
    rng = np.random.default_rng(count)
    for source, ratio in zip(rng.uniform(0.01, 0.4, 5), rng.uniform(0.05, 1.0, 5), strict=True):
        scale = odd_scale(source, source * ratio, count)
        assert abs(scale / (source * ratio) - 1) <= MOST_CHANGE * 1.0001
        assert nearest_tie(source, scale, count) > 2 * 255 * FLOAT32


def test_the_sum_that_x86_and_arm_rounded_differently_is_no_tie_any_more() -> None:
    source, scale = 0.2552388906478882, 0.04003138095140457  # of the demo CNN: 903 codes came to 117.50001
    assert nearest_tie(source, scale, 49) < 3e-5
    assert nearest_tie(source, odd_scale(source, scale, 49), 49) > 1e-3


class Pooled(nn.Module):
    """A convolution, its average, a view of that, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(4, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.conv(x).mean((2, 3), keepdim=True).flatten(1))
        return found


def test_what_is_tied_to_an_average_moves_with_it_and_nothing_else_moves() -> None:
    graph = graph_of(Pooled())
    plan, scheme = plan_of(graph, TFLITE, "static", images(4)), scheme_of(graph, TFLITE, "static")
    (mean,) = (node for node in graph.graph.nodes if "mean" in str(node.target))
    found = apart_from_ties(graph, plan.codes, scheme)
    wanted = odd_scale(plan.codes[mean.args[0].name].scale, plan.codes[mean.name].scale, 36)
    assert found[mean.name] == Affine(wanted, plan.codes[mean.name].zero_point)
    (view,) = (b for a, b in scheme.tied if a == mean.name)
    assert found[view] == found[mean.name]
    assert {name for name in found if found[name] != plan.codes[name]} <= {mean.name, view}


def test_a_range_that_is_fixed_stays() -> None:
    graph = graph_of(Pooled())
    plan, scheme = plan_of(graph, TFLITE, "static", images(4)), scheme_of(graph, TFLITE, "static")
    (mean,) = (node for node in graph.graph.nodes if "mean" in str(node.target))
    fixed = replace(scheme, fixed={mean.name: (0.0, 1.0)})
    assert apart_from_ties(graph, plan.codes, fixed) == plan.codes


def test_where_no_fraction_is_near_the_scale_stays() -> None:
    assert odd_scale(1e-6, 0.37, 49) == 0.37


@pytest.mark.parametrize("value", [3e-6, -3e-6, 1e-3, 0.7, -40.0])
def test_a_constant_that_is_added_is_no_finer_than_xnnpack_takes(value: float) -> None:
    """Its factor is between 2^-10 and 2^8; and half a thousandth of a code is what the number may lose."""
    total = 0.03
    number = affine(Range(min(value, 0.0), max(value, 0.0)))
    found = coarse(number, total)
    assert 2.0**-10 < found.scale / total < 2.0**8 and LOW <= found.zero_point <= HIGH
    real = (round(value / found.scale + found.zero_point) - found.zero_point) * found.scale
    assert abs(real - value) <= max(found.scale, number.scale) / 2 * 1.001
    assert found == number or found.scale <= total / 500
