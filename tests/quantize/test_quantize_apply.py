"""The quantized graph computes what arithmetic on codes by hand computes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from quantize_graphs import (
    ONNX,
    SHAPE,
    TFLITE,
    TOKENS,
    Block,
    Residual,
    graph_of,
    images,
    plan_of,
    rounded,
    rounded_rows,
    run,
    values_of,
)  # fmt: skip
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shrink.graph.edit import DYNAMIC, constant
from shrink.quantize.apply import apply
from shrink.quantize.codes import Affine, affine
from shrink.quantize.plan import Plan
from shrink.quantize.ranges import Range
from shrink.quantize.rounding import Rounded


def convolve(x: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """(1, C, H, W) with (O, C, 3, 3), padded by 1, in double precision."""
    padded = np.pad(x[0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weight)[None] + bias[:, None, None]


def codes_apart(given: Tensor, wanted: NDArray[np.float64], codes: Affine) -> float:
    """Largest difference in codes, of which a few may be one: sums in another order may round to the other side."""
    apart = np.abs(given.numpy() - wanted) / codes.scale
    assert (apart > 1e-3).mean() < 0.01
    return float(apart.max())


@pytest.mark.parametrize("clamp", [None, torch.relu, lambda x: F.hardtanh(x, 0.0, 6.0)])
def test_a_convolution_by_hand(clamp: object) -> None:
    layer = nn.Conv2d(4, 6, 3, padding=1)
    layers = nn.Sequential(layer)
    graph_module = graph_of((lambda x: clamp(layers(x))) if clamp else layers)  # type: ignore[operator]
    calibration = images(6)
    plan = plan_of(graph_module, ONNX, "static", calibration)
    last = plan.scheme.values[-1]
    quantized = apply(graph_module, plan)

    image = images(1, seed=8)[0] * 1.2  # beyond the calibrated range, too
    with torch.no_grad():
        x = rounded(image.numpy(), affine(Range(*(float(e) for e in torch.aminmax(torch.cat(calibration))))))
        real = convolve(x, rounded_rows(layer.weight.numpy()), layer.bias.double().numpy())
    real = real if clamp is None else np.maximum(real, 0) if clamp is torch.relu else np.clip(real, 0, 6)
    assert codes_apart(run(quantized, image), rounded(real, plan.codes[last]), plan.codes[last]) < 1.001


def test_a_bias_is_held_in_steps_of_input_times_weight() -> None:
    """As files hold it; of a weight with large numbers such a step is no longer small beside one of the output."""
    layer = nn.Conv2d(4, 6, 3, padding=1)
    with torch.no_grad():
        layer.weight.mul_(100)
    graph_module = graph_of(layer)
    plan = plan_of(graph_module, ONNX, "static", images(6))
    (conv,) = (n for n in apply(graph_module, plan).graph.nodes if n.target is torch.ops.aten.conv2d.default)
    steps = plan.codes["x_1"].scale * np.abs(layer.weight.detach().double().numpy()).max((1, 2, 3)) / 127
    wanted = np.rint(layer.bias.detach().double().numpy() / steps) * steps
    np.testing.assert_allclose(constant(conv.graph.owning_module, conv.args[2]), wanted, rtol=1e-6)
    assert np.abs(wanted - layer.bias.detach().numpy()).max() > 1e-3


def test_a_linear_with_a_float_answer_by_hand() -> None:
    layer = nn.Linear(8, 5)
    graph_module = graph_of(layer, TOKENS)
    calibration = images(4, TOKENS)
    plan = plan_of(graph_module, ONNX, "static", calibration)
    assert plan.scheme.values == ("x_1",)
    image = images(1, TOKENS, seed=8)[0]
    with torch.no_grad():
        x = rounded(image.numpy(), plan.codes["x_1"])
        wanted = x @ rounded_rows(layer.weight.numpy()).T + layer.bias.double().numpy()
    np.testing.assert_allclose(run(apply(graph_module, plan), image), wanted, rtol=1e-5, atol=1e-5)


def test_a_sum_of_two_branches_by_hand() -> None:
    """Each operand has its own codes, and so has the sum."""
    one, two, last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
    graph_module = graph_of(lambda x: last(one(x) + two(x)))
    plan = plan_of(graph_module, ONNX, "static", images(6))
    image = images(1, seed=8)[0]
    found = values_of(apply(graph_module, plan), image)
    x = rounded(image.numpy(), plan.codes["x_1"])
    branches = []
    with torch.no_grad():
        for name, layer in (("conv2d", one), ("conv2d_1", two)):
            real = convolve(x, rounded_rows(layer.weight.numpy()), layer.bias.double().numpy())
            branches.append(rounded(real, plan.codes[name]))
    assert codes_apart(found["add"], branches[0] + branches[1], plan.codes["add"]) < 2


def count(graph_module: fx.GraphModule, word: str) -> int:
    return sum(word in str(node.target) for node in graph_module.graph.nodes)


@pytest.mark.parametrize("net", [Residual(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3))], ids=["net", "two"])
@pytest.mark.parametrize("border", ["static", "dynamic"])
def test_the_float_graph_is_left_as_it_is(net: nn.Module, border: str) -> None:
    graph_module = graph_of(net)
    before = copy.deepcopy(graph_module)
    image = images(1)[0]
    answered = run(graph_module, image)
    plan = plan_of(graph_module, ONNX, border, images(4))
    for unsigned in (False, True):
        apply(graph_module, plan, unsigned=unsigned, pack_weights=unsigned)
    assert graph_module.code == before.code
    assert [n.name for n in graph_module.graph.nodes] == [n.name for n in before.graph.nodes]
    assert not any(DYNAMIC in n.meta for n in graph_module.graph.nodes)
    for name, value in before.state_dict().items():
        assert torch.equal(graph_module.state_dict()[name], value)
    assert graph_module.state_dict().keys() == before.state_dict().keys()
    assert torch.equal(run(graph_module, image), answered)


@pytest.mark.parametrize("border", ["static", "dynamic"])
def test_unsigned_codes_and_packed_weights_change_no_answer(border: str) -> None:
    for net, shape, rules in ((Residual(), SHAPE, ()), (Block(), TOKENS, ("attention",))):
        graph_module = graph_of(net, shape, *rules)
        plan = plan_of(graph_module, ONNX, border, images(4, shape))
        signed = apply(graph_module, plan)
        for image in images(3, shape, seed=8):
            wanted = run(signed, image)
            for unsigned, pack in ((True, False), (False, True), (True, True)):
                other = apply(graph_module, plan, unsigned=unsigned, pack_weights=pack)
                assert torch.equal(run(other, image), wanted)


def test_unsigned_codes_are_uint8_and_128_higher() -> None:
    graph_module = graph_of(Residual())
    plan = plan_of(graph_module, ONNX, "static", images(4))
    for unsigned, dtype, shift in ((False, torch.int8, 0), (True, torch.uint8, 128)):
        quantized = apply(graph_module, plan, unsigned=unsigned)
        nodes = [n for n in quantized.graph.nodes if "quantize_per_tensor" in str(n.target)]
        assert len(nodes) == len(plan.codes) + sum(len(n.users) for n in nodes if n.args[0] not in nodes)
        for node in nodes:
            scale, zero, low, high, kind = node.args[1:]
            assert (low, high, kind) == (-128 + shift, 127 + shift, dtype)
            assert Affine(scale, zero - shift) in plan.codes.values()


def test_packed_weights_are_codes_and_the_float_ones_are_gone() -> None:
    graph_module = graph_of(Residual())
    plan = plan_of(graph_module, ONNX, "static", images(4))
    packed = apply(graph_module, plan, pack_weights=True)
    assert count(packed, "quantize_per_channel") == count(packed, "dequantize_per_channel") == 4
    assert count(apply(graph_module, plan), "quantize_per_channel") == 8
    for node in packed.graph.nodes:
        if "dequantize_per_channel" in str(node.target):
            codes, scales, zeros = (packed.get_buffer(str(n.target)) for n in node.args[:3])
            assert codes.dtype == torch.int8 and int(codes.abs().max()) == 127
            assert len(scales) == len(zeros) == len(codes) and not zeros.any()


def test_a_float_reader_of_a_value_that_is_also_held_reads_the_float() -> None:
    """The image goes to a convolution as codes and to a float op as it is."""
    layer = nn.Conv2d(4, 4, 1)
    graph_module = graph_of(lambda x: (layer(x), F.gelu(x)))
    quantized = apply(graph_module, plan_of(graph_module, ONNX, "static", images(3)))
    image = images(1, seed=8)[0] * 10
    assert torch.equal(values_of(quantized, image)["gelu"], F.gelu(image))
    assert not torch.equal(values_of(quantized, image)["dequantize_per_tensor_default"], image)


def test_every_reader_of_an_int8_op_reads_its_codes() -> None:
    layer = nn.Conv2d(4, 4, 1)
    graph_module = graph_of(lambda x: F.gelu(layer(x)))
    plan = plan_of(graph_module, ONNX, "static", images(3))
    found = values_of(apply(graph_module, plan), images(1, seed=8)[0])
    held = rounded(found["conv2d"].numpy(), plan.codes["conv2d"])
    np.testing.assert_allclose(found["gelu"], F.gelu(torch.from_numpy(held).float()), rtol=1e-5, atol=1e-6)


def test_run_time_linears_keep_float_inputs_and_are_marked() -> None:
    graph_module = graph_of(Block(), TOKENS, "attention")
    for target, every in ((TFLITE, "row"), (ONNX, "tensor")):
        quantized = apply(graph_module, plan_of(graph_module, target, "dynamic", images(4, TOKENS)))
        linears = [n for n in quantized.graph.nodes if n.target is torch.ops.aten.linear.default]
        assert [n.meta[DYNAMIC] for n in linears] == [every] * 5
        assert count(quantized, "quantize_per_tensor") == 0
        assert count(quantized, "dequantize_per_channel") == 5


def test_a_float_value_that_also_becomes_codes_of_another_rank_keeps_its_shape() -> None:
    layer, norm = nn.Conv2d(8, 4, 1), nn.LayerNorm(8)

    def function(x: Tensor) -> Tensor:
        tokens = norm(x).transpose(1, 2)  # (1, 8, 6)
        return layer(tokens.unsqueeze(2)).squeeze(2) @ tokens.transpose(1, 2)

    graph_module = graph_of(function, TOKENS)
    plan = plan_of(graph_module, TFLITE, "mixed", images(4, TOKENS))
    assert plan.scheme.pulled  # the converter would pull the codes up to what the product reads in float
    image = images(1, TOKENS, seed=8)[0]
    found, wanted = run(apply(graph_module, plan), image), run(graph_module, image)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.05 * float(wanted.abs().max()))


def test_weights_rounded_by_their_effect_are_taken_as_they_are() -> None:
    layer = nn.Linear(8, 5)
    graph_module = graph_of(layer, TOKENS)
    plan = plan_of(graph_module, ONNX, "static", images(4, TOKENS))
    chosen = Rounded(torch.randint(-127, 128, (5, 8), dtype=torch.int8), torch.rand(5) / 100, torch.randn(5))
    plan = replace(plan, rounded={"linear": chosen})
    image = images(1, TOKENS, seed=8)[0]
    weight = chosen.codes.double().numpy() * chosen.scales.double().numpy()[:, None]
    with torch.no_grad():
        bias = (layer.bias + chosen.bias).double().numpy()
        wanted = rounded(image.numpy(), plan.codes["x_1"]) @ weight.T + bias
    for pack in (True, False):
        np.testing.assert_allclose(
            run(apply(graph_module, plan, pack_weights=pack), image), wanted, rtol=1e-5, atol=1e-5
        )


@settings(max_examples=40)
@given(
    bias=st.floats(-1e4, 1e4, width=32), weight=st.sampled_from([0.0, 1e-30, 1e-9, 1e-4, 1.0]), step=st.floats(1e-6, 1)
)
def test_a_bias_always_fits_into_its_32_bit_code(bias: float, weight: float, step: float) -> None:
    """A runtime holds it as an integer at the scale of input times weight: a channel shut by its batch norm
    has next to no weight, and a bias."""
    layer = nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(weight), layer.bias.fill_(bias)
    graph_module = graph_of(layer, (1, 2, 2, 2))
    scheme = plan_of(graph_module, ONNX, "static", images(1, (1, 2, 2, 2))).scheme
    plan = Plan(scheme, {"x_1": Affine(step, 0), "conv2d": affine(Range(bias - 1, bias + 1))})
    quantized = apply(graph_module, plan, pack_weights=True)
    (node,) = (n for n in quantized.graph.nodes if "dequantize_per_channel" in str(n.target))
    codes, scales = (quantized.get_buffer(str(n.target)) for n in node.args[:2])
    assert abs(bias / (step * float(scales[0]))) <= 2**30 * 1.01
    reach = 128 * step * 2  # of the sum of both inputs
    error = abs(float(codes[0, 0, 0, 0]) * float(scales[0]) - weight) * reach
    assert error <= max(abs(weight) / 127, abs(bias) / (step * 2**30), 2**-23) * reach


def test_a_bias_that_fits_costs_the_weights_nothing() -> None:
    layer = nn.Conv2d(4, 6, 3)
    graph_module = graph_of(layer)
    quantized = apply(graph_module, plan_of(graph_module, ONNX, "static", images(3)), pack_weights=True)
    (node,) = (n for n in quantized.graph.nodes if "dequantize_per_channel" in str(n.target))
    found = quantized.get_buffer(str(node.args[0].target)) * quantized.get_buffer(str(node.args[1].target)).reshape(
        -1, 1, 1, 1
    )
    np.testing.assert_allclose(found, rounded_rows(layer.weight.detach().numpy()), rtol=1e-6)
