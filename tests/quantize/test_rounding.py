"""Rounding by effect: less error in the answers than nearest rounding, and exact where it must be."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import torch
from quantize_graphs import ONNX, TFLITE, graph_of, images
from torch import Tensor, fx, nn

from shrink import quantize
from shrink.graph.capture import capture
from shrink.quantize import rounding, rungs
from shrink.quantize.apply import nearest
from shrink.quantize.codes import weight_scales
from shrink.quantize.rounding import Moments, Rounded, round_layer, round_layers
from shrink.targets import Target


def real(rounded: Rounded) -> Tensor:
    return rounded.codes * rounded.scales.reshape(-1, *[1] * (rounded.codes.dim() - 1))


def layer_of(graph: fx.GraphModule) -> fx.Node:
    return next(
        n for n in graph.graph.nodes if n.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
    )


def correlated_images(count: int, channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(channels, channels, generator=generator)
    return [
        torch.einsum("cd,ndhw->nchw", mix, torch.rand(1, channels, 8, 8, generator=generator)) for _ in range(count)
    ]


LAYERS = {
    "pointwise": nn.Conv2d(12, 16, 1),
    "spatial": nn.Conv2d(12, 16, 3, padding=1),
    "depthwise": nn.Conv2d(12, 12, 3, padding=1, groups=12),
    "grouped": nn.Conv2d(12, 24, 3, padding=1, groups=3),
    "strided, no bias": nn.Conv2d(12, 8, 3, stride=2, bias=False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_answers_of_unseen_images_err_less_than_with_nearest_rounding(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name].eval().requires_grad_(False)
    layer.reset_parameters()
    graph = capture(layer, (1, 12, 8, 8))
    images = correlated_images(40, 12)
    rounded = round_layers(graph, [layer_of(graph).name], images[:32])[layer_of(graph).name]
    plain = nearest(graph, layer_of(graph))

    def error(weight: Tensor, shift: Tensor) -> float:
        x = torch.cat(images[32:])
        bias = shift if layer.bias is None else layer.bias + shift
        given = nn.functional.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        return float((given - layer(x)).square().mean())

    assert error(real(rounded), rounded.bias) < 0.8 * error(real(plain), plain.bias)


def test_uncorrelated_equally_strong_inputs_are_rounded_to_the_nearest_code() -> None:
    """With second moments that are a multiple of identity no error can be paid back elsewhere."""
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    inputs = Moments(second=1000 * torch.eye(10)[None], first=torch.zeros(1, 10), rows=1000)
    expected = (weight / weight_scales(weight)[:, None]).round()
    assert torch.equal(round_layer(weight, inputs).codes, expected.to(torch.int8))


def test_weights_that_are_codes_already_stay() -> None:
    codes = torch.randint(-127, 128, (5, 8), generator=torch.Generator().manual_seed(0))
    codes[:, 0] = 127  # so that the scale is exactly the one given
    rows = torch.randn(100, 8, generator=torch.Generator().manual_seed(1))
    inputs = Moments((rows.T @ rows)[None], rows.sum(0)[None], 100)
    found = round_layer(codes * 0.5, inputs)
    assert torch.equal(found.codes, codes.to(torch.int8))
    torch.testing.assert_close(found.bias, torch.zeros(5))


def test_what_is_left_of_the_mean_error_goes_into_the_bias() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    rows = 3 + torch.randn(500, 6, generator=torch.Generator().manual_seed(1))
    found = round_layer(weight, Moments((rows.T @ rows)[None], rows.sum(0)[None], 500))
    mean_answer = rows.mean(0) @ weight.T
    torch.testing.assert_close(rows.mean(0) @ real(found).T + found.bias, mean_answer, rtol=1e-4, atol=1e-4)


def test_moments_equal_the_sums_over_all_positions() -> None:
    layer = nn.Linear(5, 3).eval()
    graph = capture(layer, (1, 4, 5))
    images = [torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    gather = rounding._Gather(graph, [layer_of(graph)], second=True)
    gather.run_all(images)
    found, rows = gather.found[layer_of(graph).name], torch.cat(images).reshape(24, 5)
    torch.testing.assert_close(found.first[0], rows.sum(0))
    assert found.rows == 24 and found.second is not None
    weights = torch.cat([1 / (p + p.mean()) for p in rows.square().sum(1).split(4)])  # mean power: of one image
    torch.testing.assert_close(found.second[0], (rows.T * weights) @ rows)


def test_shares_and_workers_change_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are taken in shares to bound memory; each is rounded from the same inputs whatever the share."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 5, 1)).eval()
    graph = capture(net, (1, 4, 8, 8))
    names = [node.name for node in graph.graph.nodes]
    images = [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    whole = round_layers(graph, names, images)
    monkeypatch.setattr(rounding, "MOST_NUMBERS", 1)  # every layer a share of its own
    for found in (round_layers(graph, names, images), round_layers(graph, names, images, workers=3)):
        assert found.keys() == whole.keys() and len(whole) == 3
        for name in whole:
            assert torch.equal(found[name].codes, whole[name].codes)
            assert torch.equal(found[name].bias, whole[name].bias)


def test_biases_alone_can_be_corrected() -> None:
    graph = capture(nn.Conv2d(12, 16, 1).eval(), (1, 12, 8, 8))
    node = layer_of(graph)
    images = correlated_images(8, 12)
    found, plain = round_layers(graph, [node.name], images, by_effect=False)[node.name], nearest(graph, node)
    assert torch.equal(found.codes, plain.codes) and bool(found.bias.abs().max() > 0)


def test_a_second_target_of_a_graph_rounds_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And chooses what it would have chosen alone."""
    asked: list[int] = []

    def counted(graph: fx.GraphModule, names: Collection[str], *rest: object, **given: Any) -> dict[str, Rounded]:
        asked.append(sum(name.startswith("conv2d") for name in names))
        return round_layers(graph, names, *rest, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(rungs, "round_layers", counted)
    torch.manual_seed(0)
    graph = graph_of(nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    normalization = ((0.5,) * 4, (0.25,) * 4)

    def choices(*wanted: Target) -> list[quantize.Chosen]:
        observed = quantize.observe(graph, [TFLITE, ONNX], images(16, seed=4), normalization=normalization)
        return [quantize.choose(graph, observed, target, images(4, seed=9)) for target in wanted]

    second = choices(TFLITE, ONNX)[1]
    half = len(asked) // 2
    assert any(asked[:half]) and not any(asked[half:])
    (alone,) = choices(ONNX)
    assert second.rungs == alone.rungs and second.plan.rounded.keys() == alone.plan.rounded.keys()
    for name, codes in alone.plan.rounded.items():
        assert torch.equal(codes.codes, second.plan.rounded[name].codes)
