"""A range that leaves out the rarest values rounds all others finer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_graphs import graph_of, images, rounded
from torch import Tensor

from shrink.quantize.clipping import BINS, clip, clipped, histograms
from shrink.quantize.codes import affine
from shrink.quantize.image import image_range
from shrink.quantize.ranges import Range, observe


def counted(values: Tensor) -> tuple[Range, Tensor]:
    found = Range(float(values.min()), float(values.max()))
    return found, torch.histc(values, BINS, found.low, found.high).to(torch.int64)


def error(values: Tensor, found: Range, power: float) -> float:
    return float(np.mean(np.abs(rounded(values.numpy(), affine(found)) - values.numpy()) ** power))


@pytest.mark.parametrize("workers", [1, 3])
def test_histograms_are_those_of_numpy(workers: int) -> None:
    graph, shown = graph_of(lambda x: torch.relu(x * 3)), images(7)
    ranges = observe(graph, ["mul", "relu"], shown)
    found = histograms(graph, ranges, shown, workers=workers)
    values = torch.cat(shown).numpy() * np.float32(3)
    for name, seen in (("mul", values), ("relu", np.maximum(values, 0))):
        counts, _ = np.histogram(seen, BINS, (ranges[name].low, ranges[name].high))
        assert int(found[name].sum()) == seen.size
        assert np.abs(np.cumsum(counts) - found[name].cumsum(0).numpy()).max() <= 2  # a value on the edge of two bins


@given(st.integers(0, 10_000), st.sampled_from([2.0, 3.0]), st.sampled_from([1.0, 8.0, 30.0]))
@settings(max_examples=25, deadline=None)
def test_clipping_makes_the_error_no_larger_and_with_outliers_much_smaller(seed: int, power: float, far: float) -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(seed))
    values[0] = far * values.abs().max()
    found, counts = counted(values)
    tight = clip(found, counts, power)
    assert found.low <= tight.low <= 0 <= tight.high <= found.high
    assert error(values[1:], tight, power) <= 1.03 * error(values[1:], found, power)
    if far > 1 and power == 2.0:
        assert error(values, tight, power) < error(values, found, power)


def test_values_without_a_tail_keep_their_range() -> None:
    values = torch.rand(50_000, generator=torch.Generator().manual_seed(0)) * 6
    found, counts = counted(values)
    assert clip(found, counts, 2.0).high == pytest.approx(found.high, rel=0.02)
    assert clip(found, counts, 2.0).low == 0.0


def test_ranges_without_a_histogram_stay() -> None:
    found = {"a": Range(-1.0, 2.0), "b": Range(0.0, 0.0)}
    assert clipped(found, {}, 2.0) == found


@pytest.mark.parametrize("mean, std", [((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
def test_the_codes_of_the_image_are_close_to_its_grey_levels(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Never further than half a step; with a mean of 0.5 the range seen would put every level at half a step."""
    levels = (np.arange(256)[:, None] / 255 - np.array(mean)) / np.array(std)
    seen = Range(float(levels.min()), float(levels.max()))
    chosen = image_range(seen, mean, std)
    assert seen.low * 1.05 <= chosen.low <= seen.low and seen.high <= chosen.high <= seen.high * 1.05

    def noise(found: Range) -> float:
        codes = affine(found)
        return float(np.sqrt(np.mean((rounded(levels, codes) - levels) ** 2)) / codes.scale)

    assert noise(chosen) < 0.31  # of a uniform error: 1 / sqrt(12) = 0.289
    assert noise(chosen) <= noise(seen)
    if mean == (0.5,) * 3:
        assert noise(seen) > 0.4
