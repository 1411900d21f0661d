"""Layers that few models have are written in ops that every runtime has, exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import answer, images, ops, traced
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph_lower import lowered, same
from torch import Tensor, nn
from torch.nn import functional as F

from shrink.graph.capture import capture
from shrink.graph.lower import lower

CLOSE = 5e-6  # of the largest answer: exp and log of a float32
LAYERS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "elu": ("activations", nn.ELU(0.7)),
    "selu": ("activations", nn.SELU()),
    "celu": ("activations", nn.CELU(1.3)),
    "mish": ("activations", nn.Mish()),
    "softplus": ("activations", nn.Softplus()),
    "steep softplus": ("activations", nn.Softplus(3)),
    "log_sigmoid": ("activations", nn.LogSigmoid()),
    "soft_shrink": ("activations", nn.Softshrink(0.7)),
    "hard_shrink": ("activations", nn.Hardshrink(0.7)),
    "threshold": ("activations", nn.Threshold(0.3, -4.0)),
    "least": ("clamps", lambda x: x.clamp(min=-1.5)),
    "most": ("clamps", lambda x: x.clamp(max=2.5)),
    "least or more": ("clamps", lambda x: x.clamp_min(0.25)),
    "most or less": ("clamps", lambda x: x.clamp_max(-0.25)),
    "unit": ("clamps", nn.Hardtanh(0, 1)),
    "odd ends": ("clamps", nn.Hardtanh(-2, 5)),
    "cube": ("powers", lambda x: x.pow(3)),
    "fourth": ("powers", lambda x: x.pow(4)),
    "square root": ("powers", lambda x: x.abs() ** 0.5),
    "inverse square root": ("powers", lambda x: (x.abs() + 1e-3) ** -0.5),
    "root": ("powers", lambda x: (x.abs() + 1e-3).pow(1 / 3)),
    "inverse root": ("powers", lambda x: (x.abs() + 1e-3).pow(-0.75)),
    "log_softmax": ("logarithms", nn.LogSoftmax(1)),
    "log_softmax of rows": ("logarithms", nn.LogSoftmax(-1)),
    "logsumexp": ("logarithms", lambda x: x.logsumexp((1, 2), keepdim=True)),
    "group_norm": ("place_norms", nn.GroupNorm(3, 6)),
    "one group": ("place_norms", nn.GroupNorm(1, 6, affine=False)),
    "instance_norm": ("place_norms", nn.InstanceNorm2d(6, affine=True)),
    "bare instance_norm": ("place_norms", nn.InstanceNorm2d(6)),
    "local response": ("across_channels", nn.LocalResponseNorm(3)),
    "nearest": ("nearest", nn.Upsample(size=(9, 11), mode="nearest-exact")),
}
SHAPE = (1, 6, 5, 7)


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_a_layer_is_written_exactly_in_other_ops(name: str, seed: int) -> None:
    rule, layer = LAYERS[name]
    graph_module = traced(layer, SHAPE)
    before = ops(graph_module)
    (line,) = lower(graph_module, [rule])
    assert line.startswith(rule)
    assert same(graph_module, layer, seed, close=CLOSE) != before


@settings(max_examples=20, deadline=None)
@given(groups=st.sampled_from([1, 2, 4]), width=st.integers(1, 3), seed=st.integers(0, 99), affine=st.booleans())
def test_a_group_norm_normalizes_groups(groups: int, width: int, seed: int, affine: bool) -> None:
    norm = nn.GroupNorm(groups, groups * width, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    graph_module = capture(norm, (1, groups * width, 4, 3))
    lower(graph_module, ["place_norms"])
    assert "group_norm.default" not in same(graph_module, norm, seed, close=CLOSE)


@pytest.mark.parametrize("slopes", [1, 6])
def test_a_prelu_has_a_slope_per_channel(slopes: int) -> None:
    layer = nn.PReLU(slopes)
    nn.init.normal_(layer.weight)
    graph_module = capture(layer, SHAPE)
    assert len(lower(graph_module, ["prelu"])) == 1
    assert "prelu.default" not in same(graph_module, layer)


@pytest.mark.parametrize("layer", [nn.ELU(), nn.SELU(), nn.Mish(), nn.Softplus(), nn.LogSigmoid(), nn.CELU()])
def test_no_size_of_input_overflows(layer: nn.Module) -> None:
    graph_module = traced(layer, SHAPE)
    lower(graph_module, ["activations"])
    for size in (1e-30, 1e-6, 1e2, 1e4, 1e30):
        for image in images(1, SHAPE):
            given_, wanted = answer(graph_module, image * size), answer(layer, image * size)
            assert torch.isfinite(given_).all()
            torch.testing.assert_close(given_, wanted, rtol=1e-5, atol=2e-7)


@settings(max_examples=40, deadline=None)
@given(
    high=st.integers(1, 6), wide=st.integers(1, 6), rows=st.integers(1, 14), columns=st.integers(1, 14),
    mode=st.sampled_from(["nearest", "nearest-exact"]),
)  # fmt: skip
def test_a_nearest_resize_takes_the_places_that_torch_takes(
    high: int, wide: int, rows: int, columns: int, mode: str
) -> None:
    """Copies, of which few stretches are kept, or slices and products where places are left out."""
    layer = nn.Upsample(size=(rows, columns), mode=mode)
    found = lowered(layer, "nearest", (1, 2, high, wide))
    assert not any("upsample" in op for op in found)
    larger = rows >= high and columns >= wide
    assert "index_select.default" not in found
    assert larger or {"slice.Tensor", "linear.default"} & {*found}
    assert not larger or max(high, wide) > 5 or "linear.default" not in found


def test_what_cannot_be_written_exactly_stays() -> None:
    kept: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
        ("activations", nn.Softplus(threshold=3), "softplus.default"),
        ("clamps", nn.Hardtanh(-1, 1), "hardtanh.default"),
        ("clamps", nn.ReLU6(), "hardtanh.default"),
        ("clamps", lambda x: x.clamp(-65504, 65504), "hardtanh.default"),
        ("clamps", lambda x: x.clamp(-2, float("inf")), "clamp.default"),
        ("clamps", lambda x: x.clamp(min=-65504), "clamp.default"),
        ("clamps", lambda x: x.clamp(max=float("nan")), "clamp.default"),
        ("clamps", lambda x: (9 * x).to(torch.int32).clamp(min=1).float(), "clamp.default"),
        ("powers", lambda x: (x.abs() + 1).pow(-2), "pow.Tensor_Scalar"),
        ("powers", lambda x: x.pow(9), "pow.Tensor_Scalar"),
        ("logarithms", lambda x: x.logsumexp(1), "logsumexp.default"),
        ("across_channels", lambda x: F.avg_pool3d(x, (3, 2, 1), 1), "avg_pool3d.default"),
        ("across_channels", lambda x: F.avg_pool3d(x, (3, 1, 1), (2, 1, 1)), "avg_pool3d.default"),
    ]
    for rule, function, op in kept:
        graph_module = capture(_Layer(function), SHAPE)
        assert lower(graph_module, [rule]) == ()
        assert op in ops(graph_module)


class _Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
