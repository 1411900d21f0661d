"""The int8 regions of graphs small enough to draw them by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from quantize_graphs import ONNX, SHAPE, TFLITE, TOKENS, Block, Residual, graph_of, images, scheme_of
from torch import Tensor, nn
from torch.nn import functional as F

from shrink.graph.edit import KEEP_FLOAT
from shrink.quantize import schemes
from shrink.quantize.plan import make_plan
from shrink.quantize.ranges import observe
from shrink.quantize.scheme import Scheme, observable, plan_scheme
from shrink.targets import Target


def conv(inputs: int = 4, outputs: int = 4, size: int = 3, groups: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups)


# --- a convolutional net


def test_a_residual_net_on_tflite() -> None:
    """All int8 up to the pool; the classifier takes its input range at run time and answers in float."""
    found = scheme_of(graph_of(Residual()), TFLITE)
    assert found == Scheme(
        static=frozenset({"conv2d", "relu", "conv2d_1", "add", "relu_1", "conv2d_2"}),
        dynamic={"linear": "mean"},
        values=("x_1", "relu", "conv2d_1", "relu_1", "conv2d_2"),  # not what a fused relu follows
        tied=(),
        fixed={},
    )


def test_a_residual_net_on_onnx() -> None:
    """With static borders the pool is int8, too, and the classifier multiplies codes and answers in float."""
    graph = graph_of(Residual()).graph
    static = plan_scheme(graph, ONNX, border="static")
    assert static.static == {"conv2d", "relu", "conv2d_1", "add", "relu_1", "conv2d_2", "mean", "linear"}
    assert static.values == ("x_1", "relu", "conv2d_1", "relu_1", "conv2d_2", "mean")
    assert static.dynamic == {}
    dynamic = plan_scheme(graph, ONNX, border="dynamic")
    assert dynamic.static == static.static - {"mean", "linear"}
    assert dynamic.values == static.values[:-1]
    assert dynamic.dynamic == {"linear": "mean"}


def test_the_classic_head_of_linears_on_tflite() -> None:
    """Flattened codes: the converter would have the last linear read them, and then it cannot answer in float."""
    one, two, three = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 5)
    body = conv()

    def net(x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(body(x)), 2).flatten(1)
        return three(torch.relu(two(torch.relu(one(x)))))

    found = scheme_of(graph_of(net), TFLITE)
    assert found.dynamic == {}
    assert found.static >= {"conv2d", "max_pool2d", "linear", "linear_1", "linear_2"}
    assert found.values[-1] == "linear_2"


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "max pool": lambda x: F.max_pool2d(x, 2),
    "split": lambda x: x.split(2, 1)[1],
    "upsample": lambda x: F.interpolate(x, scale_factor=2),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "maximum": lambda x: torch.maximum(x, x.flip(2)),
    "channel order": lambda x: x[:, [2, 0, 1, 3]],
}
STOPS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(3, keepdim=True),
    "sum": lambda x: x + x,
    "gelu": lambda x: F.gelu(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "softmax, moved": lambda x: x.softmax(1).transpose(2, 3),
}


def head_behind(way: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    one, two = conv(), conv(groups=2)  # a grouped convolution has no run-time range: it is int8 for sure
    head = nn.Linear(way(torch.zeros(SHAPE)).numel(), 5)
    return lambda x: head(way(two(one(x))).flatten(1))


@pytest.mark.parametrize("name", MOVES)
def test_a_linear_behind_moved_codes_is_int8_on_tflite(name: str) -> None:
    graph = graph_of(head_behind(MOVES[name]))
    assert "linear" in scheme_of(graph, TFLITE).static
    assert scheme_of(graph, ONNX).dynamic.keys() == {"linear"}  # ONNX Runtime takes either


@pytest.mark.parametrize("name", STOPS)
def test_a_linear_behind_float_arithmetic_takes_its_range_at_run_time(name: str) -> None:
    assert scheme_of(graph_of(head_behind(STOPS[name])), TFLITE).dynamic.keys() == {"linear"}


# --- a transformer


def test_a_transformer_on_tflite_has_int8_linears_only() -> None:
    found = scheme_of(graph_of(Block(), TOKENS, "attention"), TFLITE)
    assert found == Scheme(
        static=frozenset(),
        dynamic={
            "linear": "layer_norm", "linear_1": "matmul_default_1", "linear_2": "layer_norm_1", "linear_3": "gelu",
            "linear_4": "select",
        },
        values=(),
        tied=(),
        fixed={},
    )  # fmt: skip


def test_a_transformer_on_onnx_keeps_its_residual_stream_in_float() -> None:
    found = scheme_of(graph_of(Block(), TOKENS, "attention"), ONNX, "static")
    assert found.static == {"linear", "linear_1", "linear_2", "linear_3", "linear_4"}
    assert found.values == ("layer_norm", "matmul_default_1", "layer_norm_1", "gelu", "select")  # inputs only
    assert found.tied == ()


def test_a_patch_embedding_with_a_run_time_range() -> None:
    """Its answer starts the residual stream, in float."""
    patches, head = nn.Conv2d(4, 8, 4, 4), nn.Linear(8, 5)
    graph = graph_of(lambda x: head(F.gelu(patches(x).flatten(2).transpose(1, 2))))
    assert scheme_of(graph, TFLITE).dynamic == {"conv2d": "x_1", "linear": "gelu"}
    assert scheme_of(graph, TFLITE, "mixed") == scheme_of(graph, TFLITE)
    assert scheme_of(graph, ONNX).dynamic == {"linear": "gelu"}
    assert scheme_of(graph, ONNX).static == {"conv2d"}


def test_convolutions_between_float_ops_take_fixed_ranges_where_those_are_faster() -> None:
    """One that reads codes does so in either way to begin."""
    stem, one, two, head = conv(), conv(4, 8, 1), conv(8, 4, 1), nn.Linear(4, 5)

    def net(x: Tensor) -> Tensor:
        return head(F.gelu(two(F.gelu(one(torch.relu(stem(x)))))).mean((2, 3)))

    graph = graph_of(net)
    mixed, dynamic = (scheme_of(graph, TFLITE, border) for border in ("mixed", "dynamic"))
    assert mixed.static == {"conv2d", "relu", "conv2d_1", "conv2d_2"} and mixed.dynamic == {"linear": "mean"}
    assert mixed.values == ("x_1", "relu", "conv2d_1", "gelu", "conv2d_2")
    assert dynamic.dynamic == {"conv2d_2": "gelu", "linear": "mean"}


@pytest.mark.parametrize(("width", "side", "slow"), [(4, 64, True), (4, 8, False), (48, 64, False)])
def test_8_bits_of_few_inputs_that_write_much_stay_float(width: int, side: int, slow: bool) -> None:
    """LiteRT rounds the input and multiplies more than it saves; the head is too short to matter."""
    first, last = nn.Linear(width, width), nn.Linear(width, 5)

    def net(x: Tensor) -> Tensor:
        return last(F.gelu(first(x.flatten(2).transpose(1, 2))).mean(1))

    found = scheme_of(graph_of(net, (1, width, side, side)), TFLITE)
    assert found.slow == ({"linear"} if slow else set())
    assert found.dynamic.keys() == {"linear", "linear_1"} - found.slow
    assert scheme_of(graph_of(net, (1, width, side, side)), ONNX).slow == set()


# --- what joins a region


def test_squeeze_and_excite_is_int8_throughout() -> None:
    first, down, up, last = conv(), conv(4, 2, 1), conv(2, 4, 1), conv(groups=4)

    def net(x: Tensor) -> Tensor:
        x = first(x)
        gate = torch.sigmoid(up(torch.relu(down(x.mean((2, 3), keepdim=True)))))
        return last(x * gate)

    for target in (TFLITE, ONNX):
        found = scheme_of(graph_of(net), target)
        assert found.static == {
            "conv2d", "mean", "conv2d_1", "relu", "conv2d_2", "sigmoid", "mul", "conv2d_3"
        }  # fmt: skip
        assert set(found.values) == {"x_1"} | found.static - {"conv2d_1"}
        assert found.dynamic == {}


def selective(channels: int = 4) -> Callable[[Tensor], Tensor]:
    """Two branches added with weights that a softmax gives, as in SKNet; each weight scales a map of 64 places."""
    one, two, squeeze = conv(4, channels), conv(4, channels, 1), nn.Conv2d(channels, 2 * channels, 1)
    last = conv(channels)

    def net(x: Tensor) -> Tensor:
        a, b = torch.relu(one(x)), torch.relu(two(x))
        weights = squeeze((a + b).mean((2, 3), keepdim=True)).reshape(1, 2, channels, 1, 1).softmax(1)
        return last(a * weights[:, 0] + b * weights[:, 1])

    return net


@pytest.mark.parametrize("target", [TFLITE, ONNX], ids=["tflite", "onnx"])
def test_a_softmax_that_scales_maps_is_rounded_and_the_products_are_int8(target: Target) -> None:
    graph = graph_of(selective())
    found = scheme_of(graph, target, target.borders[0])
    weights = next(node for node in graph.graph.nodes if node.target is torch.ops.aten.softmax.int)
    assert weights.name in found.values and weights.name not in found.static
    products = {node.name for node in graph.graph.nodes if node.target is torch.ops.aten.mul.Tensor}
    assert len(products) == 2 and products <= found.static
    assert weights.args[0].name not in found.static | {*found.values}  # what it reads is not rounded for it
    # ONNX Runtime would compute a softmax between codes on codes, the TFLite converter does not
    assert found.pulled == (((weights.args[0].name, weights.name),) if target is ONNX else ())


@pytest.mark.parametrize(
    ("target", "slope", "able"),
    [(TFLITE, 0.01, True), (TFLITE, 0.001, False), (TFLITE, -0.1, False), (ONNX, 0.01, True), (ONNX, 0.001, True)],
)
def test_a_leaky_relu_is_int8_where_the_runtime_has_its_slope(target: Target, slope: float, able: bool) -> None:
    one, two = conv(), conv(groups=2)
    found = scheme_of(graph_of(lambda x: two(F.leaky_relu(one(x), slope))), target)
    assert ("leaky_relu" in found.static, "leaky_relu" in found.values) == (able, True)


def test_a_leaky_relu_without_a_word_of_its_slope_has_that_of_torch() -> None:
    one, two = conv(), conv(groups=2)
    assert "leaky_relu" in scheme_of(graph_of(lambda x: two(torch.ops.aten.leaky_relu(one(x)))), TFLITE).static


@pytest.mark.parametrize(("side", "pays"), [(3, False), (4, True)])
def test_a_softmax_is_rounded_where_each_value_scales_16_or_more(side: int, pays: bool) -> None:
    one, two = conv(), conv()

    def net(x: Tensor) -> Tensor:
        x = one(x)[:, :, :side, :side]
        return two(x * x.mean((2, 3), keepdim=True).softmax(1))

    found = scheme_of(graph_of(net), TFLITE, "mixed")
    assert ("softmax" in found.values, "mul" in found.static) == (pays, pays)


def test_a_softmax_that_something_else_reads_stays_float() -> None:
    one, two = conv(), conv()

    def net(x: Tensor) -> tuple[Tensor, Tensor]:
        weights = one(x).mean((2, 3), keepdim=True).softmax(1)
        return two(one(x) * weights), weights.exp()

    found = scheme_of(graph_of(net), TFLITE, "mixed")
    assert "softmax" not in found.values and "mul" not in found.static


def test_a_softmax_that_scales_a_map_of_its_size_stays_float() -> None:
    one, two = conv(), conv()
    graph = graph_of(lambda x: two(one(x) * one(x).softmax(1)))
    found = scheme_of(graph, TFLITE, "mixed")
    assert "softmax" not in found.values and "mul" not in found.static


def test_hard_swish_lowered_is_int8_and_its_constants_have_codes() -> None:
    first, last = conv(), conv(groups=4)
    found = scheme_of(graph_of(lambda x: last(F.hardswish(first(x))), SHAPE, *TFLITE.lower), TFLITE)
    assert found.static == {"conv2d", "add_tensor", "hardtanh_default", "mul_tensor", "conv2d_1"}
    assert set(found.values) == {"x_1", "conv2d", "hardswish_three", "hardtanh_default", "mul_tensor", "conv2d_1"}


@pytest.mark.parametrize("activation", [F.gelu, F.hardswish, F.silu, torch.tanh, F.elu])
def test_an_activation_that_no_runtime_computes_in_int8_stays_float(activation: Callable[[Tensor], Tensor]) -> None:
    first, last = conv(groups=2), conv(groups=2)
    graph = graph_of(lambda x: last(activation(first(x))))
    (name,) = (n.name for n in graph.graph.nodes if n.target not in ("output",) and n.name not in
               {"x_1", "conv2d", "conv2d_1", "output"} and n.op == "call_function")  # fmt: skip
    for target in (TFLITE, ONNX):
        found = scheme_of(graph, target)
        assert found.static == {"conv2d", "conv2d_1"}
        assert found.values == ("x_1", "conv2d", name, "conv2d_1")


def test_an_op_that_would_only_convert_and_convert_back_stays_float() -> None:
    """Codes go in, but nothing int8 reads the sum; and the other way round."""
    first, last = conv(groups=2), conv(groups=2)
    found = scheme_of(graph_of(lambda x: F.gelu(first(x) + 1)), ONNX)
    assert (found.static, found.values) == ({"conv2d"}, ("x_1", "conv2d"))
    found = scheme_of(graph_of(lambda x: last(F.gelu(x) + 1)), ONNX)
    assert (found.static, found.values) == ({"conv2d"}, ("add", "conv2d"))


def test_a_sum_of_codes_and_floats_stays_float() -> None:
    first, last = conv(groups=2), conv(groups=2)
    found = scheme_of(graph_of(lambda x: last(first(x) + F.gelu(x))), ONNX)
    assert found.static == {"conv2d", "conv2d_1"}
    assert found.values == ("x_1", "conv2d", "add", "conv2d_1")


def test_ops_that_move_codes_are_tied_to_their_input() -> None:
    first, side, last = conv(), conv(), conv(8, groups=4)

    def net(x: Tensor) -> Tensor:
        x = first(x)
        y = torch.cat([F.max_pool2d(x, 3, 1, 1), side(x)], 1)
        return last(y.transpose(2, 3))

    found = scheme_of(graph_of(net), TFLITE)
    assert set(found.tied) == {
        ("conv2d", "max_pool2d"), ("max_pool2d", "cat"), ("conv2d_1", "cat"), ("cat", "transpose")
    }  # fmt: skip


def test_onnx_runtime_can_do_without_the_ties_of_a_concatenation() -> None:
    first, side, last = conv(), conv(), conv(8, groups=4)
    graph_module = graph_of(lambda x: last(torch.cat([F.max_pool2d(F.relu(first(x)), 3, 1, 1), side(x)], 1)))
    found = scheme_of(graph_module, ONNX)
    assert found.tied == (("relu", "max_pool2d"),)
    assert found.spare == (("max_pool2d", "cat"), ("conv2d_1", "cat"))
    assert found.ends == {"relu": (0.0, float("inf"))}
    plan = make_plan(found, observe(graph_module, found.values, images(4)), every_row=False)
    assert plan.scheme.tied == (("relu", "max_pool2d"), ("conv2d_1", "cat")) and not plan.scheme.spare
    assert plan.codes["relu"].zero_point == -128 != plan.codes["cat"].zero_point


def test_a_mean_or_a_sum_has_codes_of_its_own() -> None:
    first, last = conv(), conv(groups=2)
    assert scheme_of(graph_of(lambda x: last(first(x) * first(x).mean((2, 3), keepdim=True))), TFLITE).tied == ()


# --- fusing


def test_a_value_that_only_a_clamp_reads_does_not_exist() -> None:
    first, last = conv(), conv(groups=2)
    for clamp in (torch.relu, lambda x: F.hardtanh(x, 0.0, 6.0)):
        values = scheme_of(graph_of(lambda x, clamp=clamp: last(clamp(first(x)))), TFLITE).values
        assert "conv2d" not in values and len(values) == 3


def test_a_value_that_others_read_too_exists() -> None:
    first, last = conv(), conv(groups=2)
    found = scheme_of(graph_of(lambda x: last(torch.relu(y := first(x)) + y)), TFLITE)
    assert {"conv2d", "relu", "add"} <= set(found.values)


def test_the_clamp_of_the_last_convolution_is_fused_as_well() -> None:
    last = conv(groups=2)
    found = scheme_of(graph_of(lambda x: F.gelu(torch.relu(last(x)))), TFLITE)
    assert (found.static, found.values) == ({"conv2d", "relu"}, ("x_1", "relu"))


# --- what must stay out


def test_a_computed_weight_stays_float() -> None:
    other = conv(groups=2)
    graph = graph_of(lambda x: F.conv2d(other(x), x.mean((2, 3)).softmax(1).reshape(1, 4, 1, 1)))
    assert "conv2d_1" not in scheme_of(graph, ONNX).static | scheme_of(graph, TFLITE).dynamic.keys()


def test_integers_are_no_codes() -> None:
    first, last = conv(groups=2), conv(groups=2)
    graph = graph_of(lambda x: last(first(x) + (first(x) > 0).to(torch.int32)))
    found = scheme_of(graph, ONNX)
    assert not {n.name for n in graph.graph.nodes if n.meta.get("dtype") != torch.float32} & (
        set(found.values) | found.static
    )


def test_what_the_caller_keeps_in_float_stays_float_and_feeds_codes() -> None:
    graph = graph_of(Residual())
    found = plan_scheme(graph.graph, ONNX, border="dynamic", floats={"conv2d_1"})
    whole = scheme_of(graph, ONNX)
    assert "conv2d_1" in whole.static and "conv2d_1" not in found.static | found.dynamic.keys()
    assert found.static == whole.static - {"conv2d_1"} and found.values == whole.values


def test_a_node_marked_as_float_ends_the_region() -> None:
    graph = graph_of(Residual())
    (node,) = (n for n in graph.graph.nodes if n.name == "conv2d_1")
    node.meta[KEEP_FLOAT] = True
    found = scheme_of(graph, ONNX)
    assert "conv2d_1" not in found.static | found.dynamic.keys() and "add" not in found.static
    assert {"conv2d", "conv2d_2"} <= found.static | found.dynamic.keys()


def test_a_graph_without_weights_has_no_region() -> None:
    for target in (TFLITE, ONNX):
        for border in target.borders:
            found = scheme_of(graph_of(lambda x: torch.relu(x + 1).mean((2, 3))), target, border)
            assert found == Scheme(frozenset(), {}, (), (), {})


# --- candidates


def test_candidates_that_are_equal_appear_once() -> None:
    one, two = conv(groups=2), conv(groups=2)
    assert list(schemes(graph_of(lambda x: two(one(x))).graph, ONNX)) == ["dynamic"]
    assert set(schemes(graph_of(Residual()).graph, ONNX)) == {"dynamic", "static"}
    assert set(schemes(graph_of(Residual()).graph, TFLITE)) == {"mixed"}
    one, two = conv(), conv()
    assert list(schemes(graph_of(lambda x: two(F.gelu(one(x)))).graph, TFLITE)) == ["mixed", "dynamic"]


def test_observable_is_what_any_scheme_could_hold_or_read() -> None:
    for graph in (graph_of(Residual()), graph_of(Block(), TOKENS)):
        for target in (ONNX, TFLITE):
            names = observable(graph.graph, target)
            layers = [n.name for n in graph.graph.nodes if "conv2d" in n.name or "linear" in n.name]
            for border in ("mixed", "dynamic", "static"):
                for floats in (set(), *({name} for name in layers)):
                    found = plan_scheme(graph.graph, target, border=border, floats=floats)
                    assert {*found.values, *found.dynamic.values()} <= names


def test_a_linear_in_front_of_codes_is_not_left_to_answer_in_float() -> None:
    """As in PVT v2: norm, linear, tokens as a map, depthwise convolution. TFLite's linear would be asked for codes."""

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc, self.depth = nn.LayerNorm(8), nn.Linear(8, 8), conv(8, 8, groups=8)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.fc(self.norm(x)).transpose(1, 2).reshape(1, 8, 2, 3)
            return F.gelu(self.depth(tokens)).mean((2, 3))

    graph = graph_of(Mlp(), TOKENS)
    assert "linear" in scheme_of(graph, TFLITE).static and "linear" in scheme_of(graph, ONNX).dynamic


@pytest.mark.parametrize("target", [TFLITE, ONNX])
def test_a_clamp_behind_a_layer_left_in_float_is_float_and_what_it_gives_is_held(target: Target) -> None:
    """On codes, the clamp would read what the layer gives before it, which can be many times as wide."""
    layers = [nn.Conv2d(4, 6, 1), nn.ReLU6(), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU()]
    graph = graph_of(nn.Sequential(*layers, nn.Conv2d(6, 3, 1)))
    found = plan_scheme(graph.graph, target, border="dynamic", floats={"conv2d_1"})
    assert not {"conv2d_1", "relu"} & found.static and {"conv2d", "hardtanh"} <= found.static
    assert "relu" in found.values and "conv2d_1" not in found.values
