"""Every rewrite is the same function in float; what it cannot write exactly it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_nets import NETS, SHAPE, answer, images, lively, ops, traced
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shrink import targets
from shrink.graph.capture import capture
from shrink.graph.clean import tidy
from shrink.graph.factors import fold_factors
from shrink.graph.lower import DESCRIPTIONS, FIRST, LAST, RULES, lower
from shrink.graph.shapes import input_shape

aten = torch.ops.aten
shapes = st.tuples(st.just(1), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 2**16)


def same(
    graph_module: fx.GraphModule,
    wanted: Callable[[Tensor], Tensor],
    seed: int = 0,
    spread: float = 5,
    close: float = 1e-6,
) -> list[str]:
    """Ops of a graph whose answers are torch's own to `close` of the largest, on values that reach every bend."""
    for image in images(2, input_shape(graph_module), seed):
        right = answer(wanted, image * spread)
        atol = float(right.abs().max()) * close + 1e-7
        torch.testing.assert_close(answer(graph_module, image * spread), right, rtol=0, atol=atol)
    return ops(graph_module)


def lowered(function: Callable[[Tensor], Any], rules: str, shape: tuple[int, ...] = SHAPE) -> list[str]:
    """The ops after those rewrites, which answer as before."""
    graph_module = traced(function, shape)
    lower(graph_module, rules.split())
    return same(graph_module, function)


EXACT: dict[str, tuple[Any, tuple[Any, ...], list[str]]] = {
    "hard_sigmoid": (aten.hardsigmoid.default, (), ["add.Tensor", "hardtanh.default", "mul.Tensor"]),
    "hard_swish": (aten.hardswish.default, (), ["add.Tensor", "hardtanh.default", "mul.Tensor", "mul.Tensor"]),
    "silu": (aten.silu.default, (), ["sigmoid.default", "mul.Tensor"]),
    "pool_to_mean": (aten.adaptive_avg_pool2d.default, ([1, 1],), ["mean.dim"]),
}


@pytest.mark.parametrize("rule", EXACT)
@settings(max_examples=25)
@given(shape=shapes, seed=seeds)
def test_an_activation_is_written_exactly(rule: str, shape: tuple[int, ...], seed: int) -> None:
    op, args, spelling = EXACT[rule]
    graph_module = traced(lambda x: op(x, *args), shape)
    assert len(lower(graph_module, [rule])) == 1
    assert same(graph_module, lambda x: op(x, *args), seed) == spelling


@pytest.mark.parametrize("rule", EXACT)
def test_a_rule_that_is_not_asked_for_does_nothing(rule: str) -> None:
    op, args, spelling = EXACT[rule]
    graph_module = traced(lambda x: op(x, *args))
    before = ops(graph_module)
    assert lower(graph_module, [name for name in RULES if name != rule]) == ()
    assert ops(graph_module) == before != spelling


@settings(max_examples=40, deadline=None)
@given(shape=shapes, rows=st.integers(1, 9), columns=st.integers(2, 9))
def test_a_pool_over_windows_of_several_sizes_is_a_linear(shape: tuple[int, ...], rows: int, columns: int) -> None:
    found = lowered(nn.AdaptiveAvgPool2d((rows, columns)), "pool_to_mean", shape)
    assert found == ["reshape.default", "linear.default", "reshape.default"]


def test_a_pool_to_very_many_places_stays() -> None:
    found = lowered(nn.AdaptiveAvgPool2d((30, 30)), "pool_to_mean", (1, 1, 32, 32))
    assert found == ["adaptive_avg_pool2d.default"]


# --- depthwise convolutions of many taps


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 9), st.integers(1, 9)).filter(lambda k: k[0] * k[1] > 25),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    copies=st.integers(1, 2),
    bias=st.booleans(),
)
def test_a_large_depthwise_kernel_becomes_a_sum_of_small_ones(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
    copies: int, bias: bool,
) -> None:  # fmt: skip
    conv = lively(nn.Conv2d(3, 3 * copies, kernel, stride, padding, dilation, 3, bias))
    graph_module = capture(conv, (1, 3, 21, 20))
    assert len(lower(graph_module, ["big_depthwise"])) == 1
    found = same(graph_module, conv)
    weights = [n.args[1].meta["shape"] for n in graph_module.graph.nodes if n.target is aten.conv2d.default]
    assert sum(shape[2] for shape in weights) == kernel[0]
    assert all(shape[2] * shape[3] <= 25 for shape in weights)
    assert found.count("add.Tensor") == len(weights) - 1


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 5, groups=4),
        nn.Conv2d(4, 4, 7, groups=2),
        nn.Conv2d(4, 4, 7),
        nn.Conv2d(4, 4, (1, 26), groups=4),
    ],
    ids=["25 taps", "groups of two", "all channels", "a row of 26"],
)
def test_other_convolutions_stay_whole(conv: nn.Module) -> None:
    assert lowered(conv, "big_depthwise", (1, 4, 27, 27)) == ["conv2d.default"]


# --- padding


@settings(max_examples=25, deadline=None)
@given(pads=st.lists(st.integers(0, 2), min_size=4, max_size=4).filter(any), number=st.sampled_from([1.0, -2.5, 0.1]))
def test_padding_with_a_number_becomes_a_concatenation(pads: list[int], number: float) -> None:
    assert set(lowered(lambda x: aten.constant_pad_nd.default(x, pads, number), "pad_with")) == {"cat.default"}


@pytest.mark.parametrize(
    "function",
    [lambda x: aten.constant_pad_nd.default(x, [1, 1], 0.0), lambda x: aten.constant_pad_nd.default(x, [1, -1], 2.0)],
    ids=["zeros", "cut"],
)
def test_other_padding_stays(function: Callable[[Tensor], Tensor]) -> None:
    assert "cat.default" not in lowered(function, "pad_with")


# --- numbers


@settings(max_examples=40)
@given(
    op=st.sampled_from([aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor]),
    number=st.floats(0.01, 100).map(lambda x: round(x, 3)) | st.integers(1, 9),
    shape=shapes,
)
def test_a_number_becomes_a_constant(op: Any, number: float, shape: tuple[int, ...]) -> None:
    graph_module = traced(lambda x: op(x, number), shape)
    assert len(lower(graph_module, ["numbers"])) == 1
    (node,) = (n for n in graph_module.graph.nodes if n.op == "call_function")
    assert all(isinstance(arg, fx.Node) for arg in node.args)
    constants = [n for n in graph_module.graph.nodes if n.op == "get_attr"]
    assert [n.meta["shape"] for n in constants] == [(1, 1, 1, 1)]  # the rank of the other operand
    image = images(1, shape)[0]
    torch.testing.assert_close(answer(graph_module, image), op(image, number), rtol=2e-7, atol=1e-12)


def test_a_number_on_the_left_becomes_a_constant_too() -> None:
    assert lowered(lambda x: 3 * x, "numbers") == ["mul.Tensor"]
    assert lowered(lambda x: 1 + x, "numbers") == ["add.Tensor"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.add(x, 2.0, alpha=3),
        lambda x: (x > 0).to(torch.int64) + 1,
        lambda x: torch.div(x, 2, rounding_mode="floor"),
        lambda x: 1 - x,
    ],
    ids=["alpha", "integers", "floor", "number minus x"],
)
def test_what_is_no_plain_product_or_sum_of_floats_stays(function: Callable[[Tensor], Tensor]) -> None:
    graph_module = traced(function)
    before = ops(graph_module)
    assert lower(graph_module, ["numbers"]) == ()
    assert ops(graph_module) == before


def test_a_number_divided_by_a_value_is_no_product() -> None:
    """torch.export writes it as a reciprocal; a graph made by other means may not."""
    graph_module = traced(lambda x: x / 2)
    (node,) = (n for n in graph_module.graph.nodes if n.op == "call_function")
    node.args = (2.0, node.args[0])
    assert RULES["numbers"][aten.div.Tensor](graph_module, node) is None


# --- attention


@settings(max_examples=25)
@given(shape=shapes, scale=st.sampled_from([None, 0.1, 1.0]), mask=st.booleans(), seed=seeds)
def test_attention_is_softmax_of_products(shape: tuple[int, ...], scale: float | None, mask: bool, seed: int) -> None:
    """Images (1, C, H, W) as C heads of H tokens of width W."""

    def attend(x: Tensor) -> Tensor:
        bias = x @ x.transpose(2, 3) if mask else None
        return F.scaled_dot_product_attention(x, x.flip(2), x, attn_mask=bias, scale=scale)

    graph_module = traced(attend, shape)
    assert len(lower(graph_module, ["attention"])) == 1
    left = same(graph_module, attend, seed, spread=1, close=1e-5)  # exp magnifies the rounding of the scores
    assert "scaled_dot_product_attention.default" not in left
    assert left.count("matmul.default") == 2 + mask and left.count("softmax.int") == 1
    assert left.count("flatten.using_ints") == (0 if mask else 3)


@pytest.mark.parametrize("key", [lambda x: x[:, :1], lambda x: x[:, 0], lambda x: x.unsqueeze(0)])
def test_attention_whose_heads_share_keys_keeps_them_apart(key: Callable[[Tensor], Tensor]) -> None:
    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, key(x), key(x))

    graph_module = traced(attend, (1, 2, 5, 4))
    lower(graph_module, ["attention"])
    left = same(graph_module, attend, 0, spread=1, close=1e-5)
    assert left.count("flatten.using_ints") == 0 and left.count("matmul.default") == 2


def test_attention_is_the_textbook_equation() -> None:
    graph_module = traced(lambda x: F.scaled_dot_product_attention(x, x, x), (1, 2, 5, 4))
    lower(graph_module, ["attention"])
    x = images(1, (1, 2, 5, 4))[0].double()
    scores = (x @ x.mT / math.sqrt(4)).exp()
    torch.testing.assert_close(
        answer(graph_module, x.float()), (scores / scores.sum(-1, keepdim=True) @ x).float(), rtol=1e-5, atol=1e-6
    )


def test_attention_after_a_rewritten_query_or_mask() -> None:
    """The rules meet: numbers rewrites what attention then asks for its shape and dtype."""

    def net(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x * 0.5, x, x, attn_mask=x / 3)

    graph_module = traced(net)
    assert len(lower(graph_module, ["numbers", "attention"])) == 2
    image = images(1)[0]
    torch.testing.assert_close(answer(graph_module, image), answer(net, image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(16, 16).tril().bool()),
        lambda x: F.scaled_dot_product_attention(x.repeat(1, 2, 1, 1), x, x, enable_gqa=True),
    ],
    ids=["causal", "boolean mask", "grouped"],
)
def test_attention_of_another_kind_is_declined(function: Callable[[Tensor], Tensor]) -> None:
    assert "scaled_dot_product_attention.default" in lowered(function, "attention")


# --- patches


@settings(max_examples=8)
@given(
    patch=st.tuples(st.integers(1, 4), st.integers(1, 4)).filter(lambda p: p[0] * p[1] > 4),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    bias=st.booleans(),
    flatten=st.booleans(),
)
def test_patches_are_a_linear(patch: tuple[int, int], rows: int, columns: int, bias: bool, flatten: bool) -> None:
    conv = nn.Conv2d(3, 5, patch, patch, bias=bias)

    def tokens(x: Tensor) -> Tensor:
        return conv(x).flatten(2).transpose(1, 2) if flatten else conv(x).permute(0, 2, 3, 1)

    left = lowered(tokens, "patches_to_linear", (1, 3, rows * patch[0], columns * patch[1]))
    assert "conv2d.default" not in left and left.count("linear.default") == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.conv2d(x, torch.ones(4, 3, 4, 4), stride=4),  # not read as a sequence
        lambda x: F.conv2d(x, torch.ones(4, 3, 4, 4), stride=2).flatten(2),  # overlapping
        lambda x: F.conv2d(x, torch.ones(4, 3, 5, 5), stride=5).flatten(2),  # pixels left over
        lambda x: F.conv2d(x, torch.ones(4, 3, 4, 4), stride=4, padding=4).flatten(2),
        lambda x: F.conv2d(x, torch.ones(3, 1, 4, 4), stride=4, groups=3).flatten(2),
        lambda x: F.conv2d(x, torch.ones(4, 3, 2, 2), stride=2).flatten(2),  # so small that it costs more
        lambda x: F.conv2d(x, torch.ones(4, 3, 3, 3), stride=3, dilation=2).flatten(2),
    ],
)
def test_a_convolution_of_another_kind_stays(function: Callable[[Tensor], Tensor]) -> None:
    assert "conv2d.default" in lowered(function, "patches_to_linear")


# --- all together


@pytest.mark.parametrize("runtime", ["tflite-int8", "onnx-int8"])
@pytest.mark.parametrize("name", ["squeeze_excite", "silu", "encoder", "linear_norm", "windows"])
def test_what_a_target_asks_for_changes_no_answer(name: str, runtime: str) -> None:
    module = lively(NETS[name]())
    graph_module = capture(module, SHAPE)
    lines = lower(graph_module, targets.load(runtime).lower)
    assert lines and all(line.split(":")[0] in {*DESCRIPTIONS, "factors"} for line in lines)
    for image in images():
        torch.testing.assert_close(answer(graph_module, image), answer(module, image), rtol=1e-4, atol=5e-6)
    for node in graph_module.graph.nodes:
        assert "shape" in node.meta or str(node.target) not in ops(graph_module), node


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("sizes", [[6], [5, 6]])
def test_a_layer_norm_is_written_exactly(sizes: list[int], affine: bool) -> None:
    net = lively(nn.LayerNorm(sizes, eps=1e-3, elementwise_affine=affine))
    for part in net.parameters():
        part.data.normal_()
    assert "layer_norm.default" not in lowered(net, "layer_norm", (1, 4, 5, 6))


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x.chunk(3, 1),  # the last part is the smaller one
        lambda x: x.split(2, -1),
        lambda x: x.split([1, 3, 1], dim=1),
        lambda x: x.unbind(2),
    ],
)
def test_the_parts_of_a_split_are_written_as_slices(cut: Callable[[Tensor], Any]) -> None:
    def function(x: Tensor) -> Tensor:
        first, *_, last = cut(x)
        return first.sum() * last

    assert {"slice.Tensor", "select.int"} & {*lowered(function, "pieces", (1, 5, 4, 6))}


@pytest.mark.parametrize(("many", "bias"), [(2, True), (3, False)])
def test_depthwise_convolutions_that_widen_are_several(many: int, bias: bool) -> None:
    weight, shift = torch.randn(4 * many, 1, 3, 5), torch.randn(4 * many) if bias else None

    def function(x: Tensor) -> Tensor:
        return F.conv2d(x, weight, shift, (2, 1), (1, 2), groups=4)

    found = lowered(function, "multiples", (1, 4, 8, 6))
    assert found == ["conv2d.default"] * many + ["cat.default", "reshape.default", "permute.default", "reshape.default"]
    single = torch.randn(4, 1, 3, 5)
    assert lowered(lambda x: F.conv2d(x, single, groups=4), "multiples", (1, 4, 8, 6)) == ["conv2d.default"]


@pytest.mark.parametrize(
    "how", [{"size": (7, 9)}, {"size": (3, 11)}, {"scale_factor": (1.7, 2)}, {"scale_factor": 0.5}, {"size": (5, 1)}]
)
@pytest.mark.parametrize(("mode", "corners", "filtered"), [
    ("bicubic", False, False), ("bicubic", True, False), ("bicubic", False, True), ("bilinear", False, True),
])  # fmt: skip
def test_a_resize_is_two_linears(mode: str, corners: bool, filtered: bool, how: dict[str, Any]) -> None:
    def function(x: Tensor) -> Tensor:
        return F.interpolate(x, mode=mode, align_corners=corners, antialias=filtered, **how)

    assert lowered(function, "resizes", (1, 3, 6, 8)) == ["linear.default", "permute.default"] * 2


def shuffled(x: Tensor, groups: int = 2) -> Tensor:
    _, many, high, wide = x.shape
    return x.reshape(1, groups, many // groups, high, wide).transpose(1, 2).reshape(1, many, high, wide)


def test_the_order_of_channels_goes_into_the_weights_that_read_them() -> None:
    weights = torch.randn(5, 6, 3, 3), torch.randn(2, 6, 1, 1)

    def function(x: Tensor) -> Tensor:
        x = shuffled(x)
        return F.conv2d(F.gelu(x), weights[0]).mean() + F.conv2d(x, weights[1], stride=2)

    assert lowered(function, "orders", (1, 6, 8, 7)) == [
        "gelu.default", "conv2d.default", "mean.default", "conv2d.default", "add.Tensor",
    ]  # fmt: skip


def test_the_order_of_channels_goes_through_branches_gates_and_the_next_stage() -> None:
    """A stage's sums, depthwise kernels, constants and gates all change with it; so does the stage after it."""
    net = Stages().eval()
    found = lowered(net, "orders", (1, 6, 8, 8))
    assert "permute.default" not in found and "transpose.int" not in found and "reshape.default" not in found
    assert len(found) == len(lowered(Stages(shuffle=False).eval(), "orders", (1, 6, 8, 8)))


class Stages(nn.Module):
    """Two stages of a residual stream, each behind a shuffle."""

    def __init__(self, shuffle: bool = True) -> None:
        super().__init__()
        self.shuffle = shuffle
        self.scales = nn.ParameterList([torch.randn(1, 6, 1, 1), torch.randn(12, 1, 1), torch.randn(12)])
        self.full = nn.ModuleList([nn.Conv2d(c, c, 3, padding=1) for c in (6, 12)])
        self.own = nn.ModuleList([nn.Conv2d(c, c, 3, padding=1, groups=c) for c in (6, 12)])
        self.gates = nn.ModuleList([nn.Conv2d(c, c, 1) for c in (6, 12)])
        self.wider = nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False)
        self.narrow, self.last = nn.Conv2d(12, 5, 1), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        for number in range(2):
            x = shuffled(x) if self.shuffle else x
            x = F.gelu(self.full[number](x) + x * self.scales[number])
            x = x * self.gates[number](x.mean((2, 3), keepdim=True)).sigmoid()
            x = x + F.max_pool2d(torch.constant_pad_nd(self.own[number](x), (0, 1, 1, 0)), 2, 1)
            x = torch.cat([self.wider(x)] * 2, 1) if number == 0 else x
        return self.narrow(x).mean((2, 3)) + self.last(F.adaptive_avg_pool2d(x, 1).flatten(1) * self.scales[2])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.conv2d(shuffled(x), torch.ones(6, 3, 1, 1), groups=2),  # reads channels group by group
        lambda x: F.conv2d(shuffled(x), torch.ones(6, 6, 1, 1)) + shuffled(x),  # a sum reads the others' order
        lambda x: F.conv2d(x.flip(3), torch.ones(2, 6, 1, 1)),  # places, not channels
        lambda x: F.conv2d(x.reshape(1, 8, 6, 6).transpose(1, 2).reshape(1, 6, 8, 6), torch.ones(2, 6, 1, 1)),
        lambda x: F.conv2d(x[:, :3].repeat(1, 2, 1, 1), torch.ones(2, 6, 1, 1)),
        lambda x: F.conv2d(shuffled(x) * x, torch.ones(2, 6, 1, 1)),  # the other factor comes as it is
        lambda x: F.conv2d(torch.cat([shuffled(x), x], 2), torch.ones(2, 6, 1, 1)),
        lambda x: F.conv2d(shuffled(x).softmax(1), torch.ones(2, 6, 1, 1)),
        lambda x: F.conv2d(shuffled(x) + x.mean(1, keepdim=True), torch.ones(2, 6, 1, 1)),
        lambda x: shuffled(x).mean((2, 3)),
        lambda x: F.linear(shuffled(x).mean((2, 3)).reshape(2, 3), torch.ones(2, 3)),
        lambda x: F.linear(shuffled(x).mean(2), torch.ones(2, 6)),  # reads places
        lambda x: F.conv2d(
            shuffled(x) * F.linear(x.mean((2, 3)), torch.ones(6, 6)), torch.ones(2, 6, 1, 1)
        ),  # by column
    ],
)
def test_an_order_that_something_else_reads_stays(function: Callable[[Tensor], Tensor]) -> None:
    before = ops(traced(function, (1, 6, 8, 6)))
    assert lowered(function, "orders", (1, 6, 8, 6)) == before


def test_the_lines_say_how_often_a_rule_fired() -> None:
    graph_module = traced(lambda x: F.hardswish(F.hardswish(x)) + F.silu(x))
    assert lower(graph_module, ["hard_swish", "silu", "attention"]) == (
        "hard_swish: written as x * relu6(x + 3) / 6, 2 times",
        "silu: written as x * sigmoid(x), 1 times",
    )


def test_every_rule_has_a_description_and_every_target_names_rules() -> None:
    assert {*FIRST, *RULES, *LAST} == DESCRIPTIONS.keys()
    assert {rule for name in targets.names() for rule in targets.load(name).lower} <= DESCRIPTIONS.keys()


# --- factors


def factors(net: Callable[[Tensor], Tensor]) -> int:
    """How many products were folded; folding must answer as not folding does, to 1e-5."""
    graph_module = traced(net)
    count = fold_factors(graph_module)
    tidy(graph_module)
    for image in images(3):
        wanted = answer(net, image)
        torch.testing.assert_close(answer(graph_module, image), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    return count


THIRD = torch.full((1, 1, 1, 1), 1 / 3)


def conv(out: int = 4) -> nn.Module:
    return lively(nn.Conv2d(3, out, 3, padding=1))


@pytest.mark.parametrize(
    ("rules", "folded"),
    [
        (["hard_swish"], 0),  # read by a pool, which is no product
        (["hard_swish", "pool_to_mean"], 1),
        (["hard_swish", "hard_sigmoid", "pool_to_mean"], 2),
    ],
)
def test_factors_of_squeeze_excite_and_hard_swish(rules: list[str], folded: int) -> None:
    module = lively(NETS["squeeze_excite"]())
    graph_module = capture(module, SHAPE)
    lines = lower(graph_module, rules)
    count = [f"factors: constant products moved into the next weights, {folded} times"] if folded else []
    assert [line for line in lines if line.startswith("factors")] == count
    for image in images():
        torch.testing.assert_close(answer(graph_module, image), answer(module, image), rtol=1e-5, atol=2e-6)


def test_a_factor_goes_into_the_next_weights() -> None:
    one, linear = conv(), lively(nn.Linear(768, 4))
    assert factors(lambda x: one(x * THIRD)) == 1
    assert factors(lambda x: one(THIRD * x)) == 1
    assert factors(lambda x: linear((x * THIRD).flatten(1))) == 1


@pytest.mark.parametrize(
    "way",
    [
        lambda x: x.mean((2, 3)),
        lambda x: x.permute(0, 2, 3, 1).reshape(1, -1, 3)[:, 1:9].transpose(0, 1).squeeze(1),
        lambda x: x.select(2, 3).permute(0, 2, 1).unsqueeze(1),
        lambda x: (x * torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)).mean((2, 3)),
    ],
)
def test_a_factor_goes_through_what_is_linear(way: Callable[[Tensor], Tensor]) -> None:
    linear = lively(nn.Linear(3, 4))
    assert factors(lambda x: linear(way((x + 1) * THIRD))) == 1


def test_a_factor_goes_to_all_readers_or_to_none() -> None:
    one, two = conv(), conv()
    assert factors(lambda x: one(y := x * THIRD) + two(y)) == 1
    assert factors(lambda x: one(y := x * THIRD) + torch.relu(two(torch.relu(y)))) == 1
    assert factors(lambda x: one(y := x * THIRD) + torch.relu(two(torch.tanh(y)))) == 0
    assert factors(lambda x: one(y := x * THIRD).sum() + y) == 0


def test_a_factor_that_arrives_twice_counts_twice() -> None:
    """y = c x enters as y * mean(y): the product carries c squared."""
    one = conv()
    assert factors(lambda x: one((y := x * THIRD) * y.mean((2, 3), keepdim=True))) == 1


def test_chained_factors_fold_one_after_the_other() -> None:
    one, seven = conv(), torch.full((1, 1, 1, 1), 7.0)
    assert factors(lambda x: one(x * THIRD * seven)) == 2


@pytest.mark.parametrize(
    "between",
    [
        torch.relu,
        lambda x: F.max_pool2d(x, 3, 1, 1),
        lambda x: F.leaky_relu(x, 0.2).flatten(2).reshape(1, 3, 16, 16),
    ],
    ids=["relu", "max pool", "leaky relu"],
)
def test_a_factor_above_0_goes_through_what_keeps_the_sign(between: Callable[[Tensor], Tensor]) -> None:
    one = conv()
    assert factors(lambda x: one(between((x - 1) * THIRD))) == 1
    assert factors(lambda x: one(between((x - 1) * -THIRD))) == 0


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x + 1,
        lambda x: x + x.mean(),
        lambda x: torch.cat([x[:, :1], x[:, 1:]], 1),
        lambda x: x * x,
        lambda x: x.softmax(1),
    ],
    ids=["add a number", "add", "cat", "square", "softmax"],
)
def test_a_reader_that_cannot_absorb_keeps_the_factor(between: Callable[[Tensor], Tensor]) -> None:
    one = conv()
    assert factors(lambda x: one(between(x * THIRD))) == 0


def test_a_factor_that_nothing_absorbs_stays() -> None:
    assert factors(lambda x: x * THIRD) == 0
    assert factors(lambda x: (x * THIRD).flatten(1)) == 0
    assert factors(lambda x: F.conv2d(x, x.mean() * THIRD * torch.ones(3, 3, 1, 1))) == 0


def test_only_one_element_is_a_factor() -> None:
    one, many = conv(), torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    assert factors(lambda x: one(x * many)) == 0


def test_a_factor_that_adds_dimensions_is_more_than_a_factor() -> None:
    linear = lively(nn.Linear(3, 4))
    assert factors(lambda x: linear(x.mean((2, 3)) * THIRD)) == 0  # (1, 3) becomes (1, 1, 1, 3)


def test_shared_weights_are_scaled_for_one_reader_only() -> None:
    shared = lively(nn.Conv2d(3, 3, 3, padding=1))
    assert factors(lambda x: shared(shared(x) * THIRD)) == 1


@pytest.mark.parametrize(
    "pool",
    [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((3, 5), padding=(1, 2)), nn.MaxPool2d(2, 1, 1, dilation=2)],
)
@pytest.mark.parametrize("bend", [torch.relu, torch.sigmoid, lambda x: F.hardtanh(x, 0.0, 6.0)])
def test_a_maximum_of_what_is_not_negative_may_be_padded_with_zeros(pool: nn.Module, bend: Callable[..., Any]) -> None:
    found = lowered(lambda x: pool(bend(x)), "pool_padding", (1, 3, 9, 8))
    assert found[1:] == ["constant_pad_nd.default", "max_pool2d.default"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, 3, 2, 1),  # may be negative: a zero around it could be the maximum
        lambda x: F.max_pool2d(F.hardtanh(x), 3, 2, 1),
        lambda x: F.max_pool2d(torch.relu(x), 3, 2, 1, ceil_mode=True),
        lambda x: F.max_pool2d(torch.relu(x), 2),
    ],
)
def test_other_pools_keep_their_padding(function: Callable[[Tensor], Tensor]) -> None:
    assert "constant_pad_nd.default" not in lowered(function, "pool_padding", (1, 3, 9, 8))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, :, ::2],
        lambda x: x[:, :, 1::2, ::4],
        lambda x: x[..., 2::4],
        lambda x: x[:, :, 0:7:2],  # the end changes nothing
        lambda x: x[:, :, ::3],  # 8 numbers: one more is needed
        lambda x: x[:, :, 1::3, 1::7],
    ],
)
def test_every_other_number_is_selected(function: Callable[[Tensor], Tensor]) -> None:
    found = lowered(function, "every_other", (1, 3, 8, 8))
    assert "slice.Tensor" not in found or "select.int" in found
    assert found.count("select.int") >= 1


@pytest.mark.parametrize(
    ("function", "selections"),
    [
        (lambda x: F.avg_pool2d(x, 1, 2), 2),
        (lambda x: F.avg_pool2d(x, 1, [3, 2]), 2),
        (lambda x: F.avg_pool2d(x, 1, 2, ceil_mode=True, count_include_pad=False), 2),
        (lambda x: F.avg_pool2d(x, 1, [1, 2]), 1),
        (lambda x: F.avg_pool2d(x, 1, 2, divisor_override=1), 2),
    ],
)
def test_an_average_of_one_place_is_a_selection(function: Callable[[Tensor], Tensor], selections: int) -> None:
    found = lowered(function, "average_pool", (1, 3, 8, 7))
    assert found.count("select.int") == selections
    assert "avg_pool2d.default" not in found


@pytest.mark.parametrize(
    ("function", "becomes"),
    [
        (lambda x: F.avg_pool2d(x, 2), "conv2d.default"),
        (lambda x: F.avg_pool2d(x, [1, 2], [2, 1]), "conv2d.default"),
        (lambda x: F.avg_pool2d(x, 3, 1, 1), "conv2d.default"),
        (lambda x: F.avg_pool2d(x, 1, 2, divisor_override=3), "conv2d.default"),
        (lambda x: F.avg_pool2d(x, (8, 7)), "mean.dim"),
        (lambda x: F.avg_pool2d(x, (8, 7), divisor_override=5), "avg_pool2d.default"),  # 56 taps
        (lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), "avg_pool2d.default"),  # edges differ
        (lambda x: F.avg_pool2d(x, [2, 1], [2, 1], ceil_mode=True), "conv2d.default"),  # no window reaches further
    ],
)
def test_an_average_of_few_places_is_a_convolution(function: Callable[[Tensor], Tensor], becomes: str) -> None:
    assert lowered(function, "average_pool", (1, 3, 8, 7)) == [becomes]


PADDED = ["constant_pad_nd.default", "conv2d.default", "mul.Tensor"]


@pytest.mark.parametrize(
    ("function", "becomes"),
    [
        (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), ["conv2d.default", "mul.Tensor"]),
        (lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True), PADDED),
        (lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True), PADDED),
        (lambda x: F.avg_pool2d(x, [3, 2], [2, 3], [1, 0], True, False), PADDED),
        (lambda x: F.avg_pool2d(x, [3, 2], [2, 3], [1, 1], True, True), PADDED),
    ],
)
def test_averages_of_fewer_places_at_the_edges_are_a_convolution_and_factors(
    function: Callable[[Tensor], Tensor], becomes: list[str]
) -> None:
    assert lowered(function, "average_pool", (1, 3, 8, 7)) == becomes


# --- concatenations


def dense(layers: int, parts: int = 1) -> Callable[[Tensor], Tensor]:
    """A dense block: every layer reads all that came before."""

    def run(x: Tensor) -> Tensor:
        known = [x * (1 + i) for i in range(parts)]
        for _ in range(layers):
            known.append(torch.cat(known, 1).sin()[:, :2])
        return torch.cat(known, 1)

    return run


def cats(graph_module: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph_module.graph.nodes if node.target is aten.cat.default]


@pytest.mark.parametrize(("layers", "parts"), [(12, 1), (3, 8)])
def test_long_concatenations_go_on_from_those_before_them(layers: int, parts: int) -> None:
    """Each joins one more to what the layer before it joined, and copies no more than it did."""
    function = dense(layers, parts)
    graph_module = traced(function, (1, 3, 4, 4))
    before = [len(node.args[0]) for node in cats(graph_module)]
    assert before == [parts + i for i in range(layers + 1)]
    lower(graph_module, ["short_cats"])
    same(graph_module, function)
    first = next(i for i, count in enumerate(before) if count > 5 and i > 0)
    assert [len(node.args[0]) for node in cats(graph_module)] == [*before[:first], *[2] * (layers + 1 - first)]


def test_a_lonely_long_concatenation_stays() -> None:
    assert lowered(dense(0, 30), "short_cats").count("cat.default") == 1


def test_short_concatenations_and_those_of_another_axis_stay() -> None:
    assert lowered(lambda x: torch.cat([x] * 5, 1), "short_cats") == ["cat.default"]

    def function(x: Tensor) -> Tensor:
        y = x.sin()
        return torch.cat([x, y], 2).sum(2, keepdim=True) + torch.cat([x, y, x, y, x, y], 1)[:, :3]

    graph_module = traced(function, (1, 3, 8, 8))
    lower(graph_module, ["short_cats"])
    same(graph_module, function)
    assert [len(node.args[0]) for node in cats(graph_module)] == [2, 6]


@pytest.mark.parametrize(
    "function", [lambda x: x[:, :, 2:6], lambda x: x[:, :, 2::3], lambda x: x[:, :, 0:5:2], lambda x: x[:, :, 3::2]]
)
def test_other_slices_stay(function: Callable[[Tensor], Tensor]) -> None:
    assert "select.int" not in lowered(function, "every_other", (1, 3, 8, 8))
