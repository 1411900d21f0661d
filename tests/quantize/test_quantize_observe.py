"""Ranges are the extremes over all images, whatever the number of workers."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from quantize_graphs import ONNX, SHAPE, TFLITE, Residual, graph_of, images, scheme_of
from torch import Tensor, nn

from shrink import quantize
from shrink.errors import CalibrationError
from shrink.graph.capture import capture
from shrink.quantize.plan import MOST_NOISE, make_plan
from shrink.quantize.ranges import Range, observe
from shrink.quantize.scheme import Scheme


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_ranges_are_the_extremes_numpy_finds(workers: int) -> None:
    graph_module = graph_of(lambda x: torch.relu(x * 3 + 1).mean((2, 3)))
    shown = images(9)
    found = observe(graph_module, ["x_1", "mul", "relu", "mean"], iter(shown), workers=workers)
    x = torch.cat(shown).numpy()
    wanted = {"x_1": x, "mul": x * np.float32(3), "relu": np.maximum(x * np.float32(3) + np.float32(1), 0)}
    for name, values in wanted.items():
        assert (found[name].low, found[name].high) == (float(values.min()), float(values.max()))
    mean = wanted["relu"].mean((2, 3))
    np.testing.assert_allclose([found["mean"].low, found["mean"].high], [mean.min(), mean.max()], rtol=1e-6)
    assert found.keys() == {"x_1", "mul", "relu", "mean"}


def test_the_noise_of_one_range_per_image_is_the_equation() -> None:
    """Power of the rounding error, step^2 / 12, over the power of the values, both summed over images."""
    shown = images(5)
    found = observe(graph_of(lambda x: x * 2), ["x_1"], shown)["x_1"]
    x = torch.stack(shown).double().numpy()
    steps = np.array([(image.max() - image.min()) / 255 for image in x])
    wanted = (steps**2 / 12).sum() / np.mean(x**2, axis=(1, 2, 3, 4)).sum()
    np.testing.assert_allclose(found.noise, wanted, rtol=1e-5)


def test_the_noise_that_is_estimated_is_the_noise_that_rounding_makes() -> None:
    (image,) = images(1, (1, 4, 64, 64))
    found = observe(graph_of(lambda x: x * 2, image.shape), ["x_1"], [image])["x_1"]
    error = quantize.simulate.round_dynamic(image, rows=False) - image
    assert float(error.square().mean() / image.square().mean()) == pytest.approx(found.noise, rel=0.05)


def test_the_result_does_not_depend_on_workers_or_order_to_the_last_bit() -> None:
    graph_module = graph_of(Residual())
    names = ["x_1", "relu", "conv2d_2", "mean"]
    shown = images(24)
    alone = observe(graph_module, names, shown)
    assert observe(graph_module, names, shown[::-1]) == alone
    for workers in (2, 3):
        assert observe(graph_module, names, shown, workers=workers) == alone


def test_memory_does_not_grow_with_the_images() -> None:
    graph_module = graph_of(lambda x: x * 2)
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def stream() -> Iterator[Tensor]:
        nonlocal most
        for image in range(60):
            made = torch.full(SHAPE, float(image))
            alive.add(made)
            most = max(most, len(alive))
            yield made
            del made

    for workers in (1, 3):
        most = 0
        observe(graph_module, ["x_1", "mul"], stream(), workers=workers)
        assert most <= 2 * workers + 1


class Exploding(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.stem, self.fine = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.blocks = nn.Sequential(nn.Identity(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        with torch.no_grad():
            self.blocks[1].bias[2] = value

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x)) + self.fine(x)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_name_the_layer_they_first_appear_in(value: float) -> None:
    graph_module = capture(Exploding(value), SHAPE)
    names = [n.name for n in graph_module.graph.nodes if n.op == "call_function"]
    with pytest.raises(CalibrationError, match=r"NaN or infinity in layer 'blocks\.1'") as caught:
        observe(graph_module, names, images(3), workers=2)
    assert "conv2d" in caught.value.why and caught.value.exit_code == 2


def test_an_infinity_in_an_image_is_the_input() -> None:
    bad = images(2)
    bad[1][0, 0, 0, 0] = float("inf")
    with pytest.raises(CalibrationError, match="in layer 'x_1'"):
        observe(graph_of(lambda x: x * 2), ["x_1"], bad)


def test_the_images_of_observe_are_not_changed() -> None:
    shown = images(3)
    kept = [image.clone() for image in shown]
    observe(graph_of(Residual()), ["x_1"], shown)
    assert all(torch.equal(a, b) for a, b in zip(shown, kept, strict=True))


# --- from ranges to a plan


def test_a_plan_gives_tied_values_the_same_codes() -> None:
    last, head = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4)
    graph_module = graph_of(lambda x: head(nn.functional.max_pool2d(last(x), 3, 1, 1).transpose(2, 3)))
    scheme = scheme_of(graph_module, TFLITE)
    plan = make_plan(scheme, observe(graph_module, scheme.values, images(4)), every_row=True)
    assert plan.codes["conv2d"] == plan.codes["max_pool2d"] == plan.codes["transpose"] != plan.codes["x_1"]
    assert plan.codes.keys() == set(scheme.values)


def test_a_fixed_range_beats_the_one_observed() -> None:
    scheme = Scheme(frozenset({"a"}), {}, ("a",), (), {"a": (0.0, 255.0)})
    codes = make_plan(scheme, {"a": Range(-3.0, 3.0)}, every_row=False).codes["a"]
    assert (codes.scale, codes.zero_point) == (1.0, -128)


def test_rows_are_for_inputs_whose_noise_asks_for_them_or_for_all() -> None:
    scheme = Scheme(frozenset(), {"quiet": "a", "loud": "b"}, (), (), {})
    ranges = {"a": Range(0, 1, MOST_NOISE / 2), "b": Range(0, 1, MOST_NOISE * 2)}
    assert make_plan(scheme, ranges, every_row=False).rows == {"loud"}
    assert make_plan(scheme, ranges, every_row=True).rows == {"quiet", "loud"}


# --- the choice among candidates


def outliers(count: int, seed: int) -> list[Tensor]:
    """Images whose static range is set by one that is much brighter."""
    shown = images(count, seed=seed)
    shown[0] = shown[0] * 200
    return shown


def choice(workers: int = 1) -> tuple[quantize.Chosen, quantize.Chosen]:
    """With ranges that fit, and with ranges that an outlier has spoilt."""
    graph_module = graph_of(nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.GELU(), nn.Linear(16, 5)))
    assert set(quantize.schemes(graph_module.graph, ONNX)) == {"static", "dynamic"}
    held_out = images(6, seed=9)
    results = []
    for calibration in (images(32, seed=4), outliers(32, seed=4)):
        observed = quantize.observe(
            graph_module, [ONNX], calibration, normalization=((0.5,) * 4, (0.25,) * 4), workers=workers
        )
        results.append(quantize.choose(graph_module, observed, ONNX, held_out, effort="fast", workers=workers))
    return results[0], results[1]


def test_the_candidate_closer_to_the_float_graph_wins() -> None:
    _, spoilt = choice()
    assert spoilt.plan.scheme.dynamic
    errors = {rung.what: rung for rung in spoilt.rungs}
    dynamic, static = (errors[f"{name} ranges next to float ops"] for name in ("dynamic", "static"))
    assert dynamic.kept and not static.kept and dynamic.error < static.error


def test_a_rung_is_kept_if_and_only_if_it_makes_the_error_smaller() -> None:
    for chosen in choice():
        least = min(rung.error for rung in chosen.rungs if "ranges next to" in rung.what and rung.kept)
        for rung in chosen.rungs:
            if "ranges next to" not in rung.what:
                assert rung.kept == (rung.error < least)
                least = min(least, rung.error)


def test_the_choice_does_not_depend_on_workers() -> None:
    for one, two in zip(choice(1), choice(2), strict=True):
        assert replace(one.plan, rounded={}) == replace(two.plan, rounded={})
        assert (one.changes, one.rungs) == (two.changes, two.rungs)
