"""Values inside a file are found by their codes, whatever the file calls them."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
import torch.ao.quantization.fx._decomposed
from onnx import TensorProto, helper
from torch import Tensor, nn

from shrink.debug.inside import Inner, file_errors, held, onnx_runtime
from shrink.graph.capture import capture

X = np.random.default_rng(0).standard_normal((1, 3, 4, 5), np.float32)


def one(*inner: Inner, scale: float = 0.1, zero: int = 3) -> dict[str, float]:
    return file_errors([("conv", "back", scale, zero)], [({"back": X}, list(inner))])


def test_the_nearest_value_with_the_same_codes_is_taken() -> None:
    noisy = X + np.float32(0.01)
    other = Inner(0.1, 3, -X)
    found = one(other, Inner(0.1, 3, noisy))
    assert found["conv"] == pytest.approx(10 * np.log10(np.square(X).sum() / (X.size * 0.01**2)), abs=0.01)
    assert one(other)["conv"] == pytest.approx(10 * np.log10(1 / 4))  # the wrong one, and it shows


@pytest.mark.parametrize(("scale", "zero"), [(0.2, 3), (0.1, 4)])
def test_other_codes_are_other_values(scale: float, zero: int) -> None:
    assert one(Inner(scale, zero, X)) == {}


@pytest.mark.parametrize("layout", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_both_layouts_are_understood(layout: tuple[int, ...]) -> None:
    assert one(Inner(0.1, 3, X.transpose(layout)))["conv"] == 120.0
    assert one(Inner(0.1, 3, X.reshape(1, 60)))["conv"] == 120.0
    assert one(Inner(0.1, 3, X[:, :2])) == {}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)).mean((2, 3))


def test_what_is_held_on_codes_is_listed_in_order() -> None:
    graph = copy.deepcopy(capture(Net(), (1, 3, 8, 8)))
    ops = torch.ops.quantized_decomposed
    for scale, node in zip((0.1, 0.2), [n for n in graph.graph.nodes if "conv2d" in str(n.target)], strict=True):
        args = (scale, 5, -128, 127, torch.int8)
        readers = list(node.users)
        with graph.graph.inserting_after(node):
            codes = graph.graph.call_function(ops.quantize_per_tensor.default, (node, *args))
        with graph.graph.inserting_after(codes):
            back = graph.graph.call_function(ops.dequantize_per_tensor.default, (codes, *args))
        for reader in readers:
            reader.replace_input_with(node, back)
    graph.recompile()
    found = list(held(graph))
    assert [(name, scale, zero) for name, _, scale, zero in found] == [("conv2d", 0.1, 5), ("conv2d_1", 0.2, 5)]


@pytest.mark.parametrize("token", [False, True])
def test_inner_values_of_an_onnx_file_are_read_and_uint8_codes_are_shifted(token: bool) -> None:
    """A constant on codes, such as a class token, is no inner value: the runtime computes it before any image."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Add" if token else "Relu", ["d", "e"][: 1 + token], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    constants = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("z", TensorProto.UINT8, [], [130]),
    ]
    if token:
        constants.append(helper.make_tensor("t", TensorProto.FLOAT, [1, 4], [1.0, 2.0, 3.0, 4.0]))
        nodes[:0] = [
            helper.make_node("Neg", ["t"], ["n"]),
            helper.make_node("QuantizeLinear", ["n", "s", "z"], ["c"]),
            helper.make_node("DequantizeLinear", ["c", "s", "z"], ["e"]),
        ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    (found,) = onnx_runtime(model.SerializeToString())(np.array([[0.4, -3.2, 7.0, 0.0]], np.float32))
    assert (found.scale, found.zero) == (0.5, 2)
    np.testing.assert_allclose(found.real, [[0.5, -3.0, 7.0, 0.0]])
