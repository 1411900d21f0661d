"""What is folded away changes no answer; what cannot be folded stays."""

from __future__ import annotations

import pytest
import torch
from graph_nets import SHAPE, Fn, answer, images, lively, ops
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from shrink.graph.capture import capture


def same(module: nn.Module, shape: tuple[int, ...] = SHAPE, tolerance: float = 2e-6) -> list[str]:
    """The ops of the captured module, which must answer what the module answers."""
    graph_module = capture(module, shape)
    for image in images(2, shape):
        torch.testing.assert_close(answer(graph_module, image), answer(module, image), rtol=1e-5, atol=tolerance)
    return ops(graph_module)


@settings(max_examples=8)
@given(
    channels=st.integers(1, 3).map(lambda n: 2 * n),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    affine=st.booleans(),
    stride=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_a_batch_norm_goes_into_its_convolution(
    channels: int, groups: int, bias: bool, affine: bool, stride: int, seed: int
) -> None:
    net = nn.Sequential(
        nn.Conv2d(4, channels, 3, stride, 1, groups=groups, bias=bias), nn.BatchNorm2d(channels, affine=affine)
    )
    assert same(lively(net, seed), (1, 4, 6, 7), 1e-5) == ["conv2d.default"]


def test_a_folded_batch_norm_is_the_equation() -> None:
    """w' = g w and b' = beta + g (b - mean), with g = gamma / sqrt(var + eps), in double precision."""
    conv, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.1)
    graph_module = capture(lively(nn.Sequential(conv, norm)), SHAPE)
    (node,) = (n for n in graph_module.graph.nodes if n.op == "call_function")
    weight, bias = (graph_module.get_buffer(str(n.target)) for n in node.args[1:3])
    g = norm.weight.double() / (norm.running_var.double() + 0.1).sqrt()
    torch.testing.assert_close(weight, (conv.weight * g[:, None, None, None]).float())
    torch.testing.assert_close(bias, (norm.bias + g * (conv.bias - norm.running_mean)).float())


@pytest.mark.parametrize(
    "net",
    [
        nn.BatchNorm2d(3),
        nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(3)),
        nn.Sequential(nn.ConvTranspose2d(3, 3, 2, 2), nn.BatchNorm2d(3)),
        nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 2, 3, padding=1)),
    ],
)
def test_a_batch_norm_without_a_convolution_is_a_product_and_a_sum(net: nn.Module) -> None:
    left = same(lively(net))
    assert left[-3:-1] != [] and {"mul.Tensor", "add.Tensor"} <= set(left)


def test_a_convolution_with_two_readers_keeps_its_weights() -> None:
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    net = lively(Fn(lambda x: (y := conv(x)) + norm(y), conv, norm))
    assert same(net) == ["conv2d.default", "mul.Tensor", "add.Tensor", "add.Tensor"]


def test_a_convolution_used_twice_is_folded_once_per_use() -> None:
    conv, first, second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    net = lively(Fn(lambda x: second(conv(first(conv(x)))), conv, first, second))
    assert same(net, tolerance=1e-5) == ["conv2d.default", "conv2d.default"]


def test_a_batch_norm_goes_into_its_linear() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 6), nn.BatchNorm1d(6))
    assert same(lively(net), tolerance=1e-5) == ["reshape.default", "linear.default"]


def test_a_batch_norm_goes_through_a_reshape_that_keeps_the_features() -> None:
    linear, norm = nn.Linear(16, 16), nn.BatchNorm1d(16)
    net = lively(Fn(lambda x: norm(linear(x).flatten(0, 2)).reshape(x.shape), linear, norm))
    assert same(net, tolerance=1e-5) == ["linear.default", "reshape.default", "reshape.default"]


def test_a_batch_norm_does_not_go_through_a_reshape_that_mixes_the_features() -> None:
    linear, norm = nn.Linear(16, 16), nn.BatchNorm1d(16)
    net = lively(Fn(lambda x: norm(linear(x).transpose(2, 3).reshape(-1, 16)), linear, norm))
    assert "mul.Tensor" in same(net, tolerance=1e-5)
    net = lively(Fn(lambda x: norm(linear(x).reshape(1, 16, -1)), linear, norm))
    assert "mul.Tensor" in same(net, tolerance=1e-5)


def test_a_batch_norm_over_tokens_does_not_go_into_the_features() -> None:
    """BatchNorm1d on (1, N, C) normalizes N; a linear with C = N outputs has the same number of rows."""
    linear, norm = nn.Linear(16, 16), nn.BatchNorm1d(16)
    net = lively(Fn(lambda x: norm(linear(x[:, 0])), linear, norm))
    assert "mul.Tensor" in same(net)


def test_a_batch_norm_of_the_batch_at_hand_is_not_folded() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    assert "_native_batch_norm_legit.no_stats" in same(lively(net))


def test_casts_and_their_checks_go_only_where_the_dtype_stays() -> None:
    assert same(Fn(lambda x: x.to(torch.float32).type_as(x).contiguous().float() * 2)) == ["mul.Tensor"]
    assert same(Fn(lambda x: (x.double() * 2).float())) == ["_to_copy.default", "mul.Tensor", "_to_copy.default"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.zeros_like(x) + x.new_full((3, 1, 1), 2.0) + torch.ones_like(x) * 3,
        lambda x: x + torch.arange(x.shape[-1]).float()[:, None] / 7 + torch.linspace(0, 1, 16),
        lambda x: x + torch.cat([torch.eye(8), torch.eye(8)], 1).repeat(2, 1).tril().chunk(2, 1)[0].repeat(1, 2),
        lambda x: x * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1) + x.new_zeros(1),
        lambda x: torch.where(torch.ones(16, 16).triu().bool(), x, torch.full((), -1.0)),
    ],
)
def test_what_does_not_read_pixels_is_computed_once(function: object) -> None:
    graph_module = capture(Fn(function), SHAPE)  # type: ignore[arg-type]
    same(Fn(function))  # type: ignore[arg-type]
    for node in graph_module.graph.nodes:
        if node.op == "call_function":
            assert any(n.op != "get_attr" for n in node.all_input_nodes), node


def test_dropout_of_every_kind_is_gone() -> None:
    assert same(nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5), nn.ReLU())) == ["relu.default"]


# --- one spelling


@pytest.mark.parametrize(
    ("function", "spelling"),
    [
        (F.relu6, ["hardtanh.default"]),
        (lambda x: x.clamp(0, 6), ["hardtanh.default"]),
        (lambda x: x.clamp(min=0), ["relu.default"]),
        (lambda x: x.clamp_min(0), ["relu.default"]),
        (lambda x: x.clamp(-1, 6), ["hardtanh.default"]),
        (lambda x: x.clamp(torch.tensor(-1.0), torch.tensor(6.0)), ["clamp.Tensor"]),
        (lambda x: x.clamp(max=6), ["clamp.default"]),
        (lambda x: torch.concat([x, x]), ["cat.default"]),
        (lambda x: torch.concatenate([x, x], -1), ["cat.default"]),
        (lambda x: torch.multiply(x, x), ["mul.Tensor"]),
        (lambda x: torch.subtract(x, 2 * x), ["mul.Tensor", "sub.Tensor"]),
        (lambda x: torch.true_divide(x, 3), ["div.Tensor"]),
        (lambda x: F.pad(x, (1, 2)), ["constant_pad_nd.default"]),
        (lambda x: F.pad(x, (0, 0, 0, 0)) * 2, ["mul.Tensor"]),
        (lambda x: torch.ops.aten.constant_pad_nd.default(x, [0, 0]) * 2, ["mul.Tensor"]),
        (lambda x: torch.addcmul(x, x, x + 1), ["add.Tensor", "mul.Tensor", "add.Tensor"]),
        (lambda x: torch.addcmul(x, x, x, value=0.5), ["mul.Tensor", "mul.Tensor", "add.Tensor"]),
        (lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), ["constant_pad_nd.default"]),
        (lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"), ["pad.default"]),
        (lambda x: 1 - x, ["mul.Tensor", "add.Tensor"]),
        (lambda x: torch.rsub(x, x * 2), ["mul.Tensor", "mul.Tensor", "add.Tensor"]),
        (lambda x: torch.full((3, 1, 1), 2.0) - x, ["mul.Tensor", "add.Tensor"]),
        (lambda x: torch.rsub(x, 1, alpha=2), ["rsub.Scalar"]),
        (lambda x: torch.add(x, x, alpha=2), ["mul.Tensor", "add.Tensor"]),
        (lambda x: torch.sub(x, 2, alpha=3), ["sub.Tensor"]),
        (lambda x: (0 + x * 1.0 - 0) / 1 + x, ["add.Tensor"]),
        (lambda x: x.to(torch.int32) * 1.0 + x, ["_to_copy.default", "mul.Tensor", "add.Tensor"]),
        (lambda x: x.repeat(1, 2, 1, 3), ["cat.default"] * 2),
        (lambda x: x.repeat(2, 1, 1, 1, 1), ["reshape.default", "cat.default"]),
        (lambda x: x.repeat_interleave(3, 1), ["reshape.default", "expand.default", "reshape.default"]),
        (lambda x: x.repeat_interleave(2, -1), ["reshape.default", "expand.default", "reshape.default"]),
        (lambda x: x.repeat_interleave(1, 2) + 1, ["add.Tensor"]),
        (lambda x: x.tile(2), ["cat.default"]),
        (lambda x: x * x.mean(-1, keepdim=True).expand_as(x), ["mean.dim", "mul.Tensor"]),
        (lambda x: x.mean(-1, keepdim=True).expand_as(x), ["mean.dim", "expand.default"]),
        (lambda x: x.mean(-1, keepdim=True).expand_as(x) * 2, ["mean.dim", "expand.default", "mul.Tensor"]),
        (
            lambda x: x @ x.mean(-1, keepdim=True),
            ["mean.dim", *["transpose.int"] * 2, "matmul.default", "transpose.int"],
        ),
        (lambda x: x.mean(-2, keepdim=True) @ x.mean(-1, keepdim=True), ["mean.dim"] * 2 + ["matmul.default"]),
        (lambda x: x.mean(-1, keepdim=True) @ x.mean(-2, keepdim=True), ["mean.dim"] * 2 + ["mul.Tensor"]),
        (lambda x: torch.einsum("bchw,bcwk->bckh", x, x) - x, ["einsum"]),
        (lambda x: torch.max(x, 2 * x), ["mul.Tensor", "maximum.default"]),
        (lambda x: torch.min(x, 2 * x), ["mul.Tensor", "minimum.default"]),
        (lambda x: x.max(1)[0], ["amax.default"]),
        (lambda x: x.min(-1, keepdim=True)[0], ["amin.default"]),
        (lambda x: x.max(1)[1].float(), ["max.dim", "<built-in function getitem>", "_to_copy.default"]),
        (lambda x: x * x.mean(), ["mean.dim", "mul.Tensor"]),
        (lambda x: -x, ["mul.Tensor"]),
        (
            lambda x: F.glu(x.repeat(1, 2, 1, 1), 1),
            ["cat.default", *["slice.Tensor"] * 2, "sigmoid.default", "mul.Tensor"],
        ),
        (lambda x: F.rrelu(x, 0.1, 0.3), ["leaky_relu.default"]),
        (lambda x: F.pixel_unshuffle(x, 2), ["reshape.default", "permute.default", "reshape.default"]),
        (
            lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
            ["cat.default", "reshape.default", "permute.default", "reshape.default"],
        ),
        (
            lambda x: F.channel_shuffle(x.repeat(1, 2, 1, 1), 3),
            ["cat.default", "reshape.default", "permute.default", "reshape.default"],
        ),
        (lambda x: torch.roll(x, (1, -3), (2, 3)), ["slice.Tensor", "slice.Tensor", "cat.default"] * 2),
        (lambda x: torch.roll(x, 0, 2) * 2, ["mul.Tensor"]),
        (lambda x: torch.roll(x, 5), ["roll.default"]),
        (lambda x: F.adaptive_avg_pool2d(x, (4, 8)), ["avg_pool2d.default"]),
        (lambda x: F.adaptive_avg_pool2d(x, (3, 8)), ["adaptive_avg_pool2d.default"]),
        (lambda x: F.adaptive_avg_pool2d(x, x.shape[2:]) * 2, ["mul.Tensor"]),
        (lambda x: torch.lerp(x, x * x, 0.3), ["mul.Tensor", "sub.Tensor", "mul.Tensor", "add.Tensor"]),
        (
            lambda x: F.cosine_similarity(x, x * x, 1),
            [
                "mul.Tensor",
                *["linalg_vector_norm.default", "clamp_min.default", "div.Tensor"] * 2,
                "mul.Tensor",
                "sum.dim_IntList",
            ],
        ),
        (
            lambda x: torch.cdist(x, x[:, :1]),
            ["slice.Tensor", *["unsqueeze.default"] * 2, "sub.Tensor", "linalg_vector_norm.default"],
        ),
        (lambda x: x / (x * x + 1) ** 0.75, ["mul.Tensor", "add.Tensor", "pow.Tensor_Scalar", "mul.Tensor"]),
        (lambda x: x / (x * x + 1) ** 3, ["mul.Tensor", "add.Tensor", "pow.Tensor_Scalar", "div.Tensor"]),
        (lambda x: x.view(1, 48, 16).unflatten(1, (3, 16)), ["reshape.default"] * 2),
    ],
)
def test_one_op_has_one_spelling(function: object, spelling: list[str]) -> None:
    found = same(Fn(function))  # type: ignore[arg-type]
    assert found == spelling or (spelling == ["einsum"] and "bmm.default" in found and "einsum.default" not in found)


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.integers(1, 5), stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]), bias=st.booleans(),
)  # fmt: skip
def test_a_convolution_along_one_axis_is_one_over_a_row(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, bias: bool
) -> None:
    conv = nn.Conv1d(4, 6, kernel, stride, padding, dilation, groups, bias)
    left = same(lively(nn.Sequential(conv, nn.BatchNorm1d(6))), (1, 4, 15), 1e-5)
    assert left[:3] == ["unsqueeze.default", "conv2d.default", "squeeze.dim"]


def test_the_clamp_of_integers_is_left_alone() -> None:
    assert "clamp.default" in same(Fn(lambda x: (x * 9).to(torch.int32).clamp(0, 6).float()))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=8)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    dilation=st.one_of(st.integers(1, 2), st.tuples(st.integers(1, 2), st.integers(1, 3))),
    padding=st.sampled_from(["same", "valid"]),
    bias=st.booleans(),
)
def test_padding_as_a_word_is_padding_as_numbers(
    kernel: tuple[int, int], dilation: int | tuple[int, int], padding: str, bias: bool
) -> None:
    conv = nn.Conv2d(2, 4, kernel, padding=padding, dilation=dilation, groups=2, bias=bias)
    left = same(lively(nn.Sequential(conv, nn.BatchNorm2d(4))), (1, 2, 14, 15), 1e-5)
    assert left in (["conv2d.default"], ["constant_pad_nd.default", "conv2d.default"])


@pytest.mark.parametrize("clamp", [F.relu, F.relu6, lambda x: F.hardtanh(x, -0.5, 0.25)])
def test_a_clamp_moves_before_the_pool_to_the_convolution(clamp: object) -> None:
    conv = nn.Conv2d(3, 4, 3)
    net = Fn(lambda x: clamp(F.max_pool2d(conv(x), 3, 2, 1, ceil_mode=True)), conv)  # type: ignore[operator]
    left = same(net)
    assert left[0] == "conv2d.default" and left[-1] == "max_pool2d.default" and len(left) == 3


def test_a_clamp_stays_behind_a_pool_that_others_read() -> None:
    conv = nn.Conv2d(3, 3, 1)

    def two_readers_before(x: Tensor) -> Tensor:
        y = conv(x)
        return F.relu(F.max_pool2d(y, 3, 1, 1)) + y

    def two_readers_after(x: Tensor) -> Tensor:
        y = F.max_pool2d(conv(x), 2)
        return F.relu(y) + y

    order = ["conv2d.default", "max_pool2d.default", "relu.default", "add.Tensor"]
    assert same(Fn(two_readers_before, conv)) == ["conv2d.default", "relu.default", "max_pool2d.default", "add.Tensor"]
    assert same(Fn(two_readers_after, conv)) == order
