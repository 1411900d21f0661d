"""What an .onnx file is, against answers that this code did not give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from shrink.errors import RequestError
from shrink.inspect.truth import inspect_bytes, inspect_file

RNG = np.random.default_rng(0)


def model(nodes: list[onnx.NodeProto], shape: list[int | str | None], constants: dict[str, np.ndarray], *,
          dtype: int = TensorProto.FLOAT, out_dtype: int = TensorProto.FLOAT,
          domains: tuple[str, ...] = ()) -> onnx.ModelProto:  # fmt: skip
    """x -> nodes -> y."""
    ports = [[helper.make_tensor_value_info("x", dtype, shape)], [helper.make_tensor_value_info("y", out_dtype, None)]]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", *ports, tensors)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def weights_only() -> onnx.ModelProto:
    """A convolution and a matrix product on int8 weights, with float activations."""
    return model(
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
            helper.make_node("Conv", ["x", "wf"], ["c"]),
            helper.make_node("Flatten", ["c"], ["f"]),
            helper.make_node("DequantizeLinear", ["v", "vs", "vz"], ["vf"], axis=1),
            helper.make_node("MatMul", ["f", "vf"], ["y"]),
        ],
        [1, 3, 8, 8],
        {
            "w": RNG.integers(-127, 127, (8, 3, 3, 3)).astype(np.int8), "s": np.float32(0.01), "z": np.int8(0),
            "v": RNG.integers(-127, 127, (288, 10)).astype(np.int8), "vs": np.full(10, 0.01, np.float32),
            "vz": np.zeros(10, np.int8),
        },
    )  # fmt: skip


@pytest.mark.parametrize("name", ["net", "attention"])
def test_multiply_accumulates_are_half_of_torchs_flops(
    onnx_files: dict[str, Path], models: dict[str, nn.Module], name: str
) -> None:
    """Before and after quantization, whatever the optimizer fused."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        models[name](torch.randn(1, 3, 32, 32))
    for variant in (name, f"{name}_static", f"{name}_dynamic"):
        assert inspect_file(onnx_files[variant]).truth.macs == counter.get_total_flops() // 2, variant


@pytest.mark.parametrize(("stride", "groups", "is_unit"), [(1, 1, True), (2, 1, False), (1, 2, False)])
def test_only_an_ungrouped_3x3_at_stride_1_is_one(stride: int, groups: int, is_unit: bool) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride] * 2, pads=[1] * 4, group=groups)
    weight = RNG.normal(size=(8, 4 // groups, 3, 3)).astype(np.float32)
    (found,) = inspect_bytes(model([node], [1, 4, 16, 16], {"w": weight}).SerializeToString(), "onnx").records
    assert found.macs and found.unit_3x3 == is_unit


def test_both_formats_of_a_model_agree(onnx_files: dict[str, Path], tflite_files: dict[str, Path]) -> None:
    for name in ("net", "attention"):
        ours = [inspect_file(files[name]).truth for files in (onnx_files, tflite_files)]
        assert ours[0].macs == ours[1].macs
        assert ours[0].int8_mac_share == ours[1].int8_mac_share == 0


def test_a_float_file_has_no_int8_and_no_delegate(onnx_files: dict[str, Path]) -> None:
    truth = inspect_file(onnx_files["net"]).truth
    assert (truth.int8_mac_share, truth.int8_weight_share, truth.leftovers) == (0, 0, ())
    assert (truth.delegate, truth.delegate_partitions, truth.undelegated_ops) == (None, None, ())


def test_quantize_dequantize_pairs_that_the_runtime_fuses_are_int8(onnx_files: dict[str, Path]) -> None:
    found = inspect_file(onnx_files["net_static"])
    assert {r.op: r.compute for r in found.records if r.macs} == {"QLinearConv": "int8", "QGemm": "int8"}
    assert (found.truth.int8_mac_share, found.truth.dynamic_mac_share, found.truth.int8_weight_share) == (1, 0, 1)
    assert [left.op for left in found.truth.leftovers] == ["ReduceMean"]
    assert found.truth.ops == len(onnx.load(onnx_files["net_static"]).graph.node)


def test_ranges_found_at_run_time_are_dynamic(onnx_files: dict[str, Path]) -> None:
    truth = inspect_file(onnx_files["net_dynamic"]).truth
    assert (truth.int8_mac_share, truth.dynamic_mac_share) == (1, 1)


def test_leftovers_of_a_vit_carry_their_reason(onnx_files: dict[str, Path]) -> None:
    found = {left.op: left.reason for left in inspect_file(onnx_files["attention_static"]).truth.leftovers}
    assert found["LayerNormalization"] == found["Gelu"] == "ONNX Runtime has no int8 kernel for it"
    assert found["Add"] == "quantized in the file, but ONNX Runtime made no int8 kernel of it"


def test_weights_only_is_float_where_the_runtime_expands_them() -> None:
    found = inspect_bytes(weights_only().SerializeToString(), "onnx")
    computes = {r.op: r.compute for r in found.records if r.macs}
    assert computes == {"Conv": "float32", "MatMulNBits": "int8-dynamic"}
    assert found.truth.int8_weight_share == 1
    assert [left.reason for left in found.truth.leftovers] == ["weights only: they are expanded to float before use"]


def test_the_runtime_agrees_that_its_packed_product_quantizes_activations() -> None:
    """MatMulNBits on int8 weights is not float arithmetic: its answer is off by the rounding of its input."""
    made = weights_only()
    x = RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)
    answers = []
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {"x": x})[0])
    assert np.abs(answers[0] - answers[1]).max() > 1e-4 * np.abs(answers[0]).max()


def test_a_free_batch_is_one_and_any_other_free_axis_is_refused() -> None:
    node = [helper.make_node("Conv", ["x", "w"], ["y"])]
    weights = {"w": np.zeros((4, 3, 3, 3), np.float32)}
    for batch in ("N", None):
        found = inspect_bytes(model(node, [batch, 3, 8, 8], weights).SerializeToString(), "onnx")
        assert found.truth.macs == 6 * 6 * 4 * 27
        assert found.contract.inputs[0].shape == (1, 3, 8, 8)
    with pytest.raises(RequestError, match="axis 2 of the input 'x' is free"):
        inspect_bytes(model(node, [1, 3, "H", 8], weights).SerializeToString(), "onnx")


def test_integer_ports_carry_their_scale() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["f"]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "t", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.5), "t": np.float32(0.25), "z": np.uint8(7)}
    made = model(nodes, [1, 8], constants, dtype=TensorProto.UINT8, out_dtype=TensorProto.UINT8)
    contract = inspect_bytes(made.SerializeToString(), "onnx").contract
    assert [(p.dtype, p.scale, p.zero_point) for p in (*contract.inputs, *contract.outputs)] == [
        ("uint8", 0.5, 7), ("uint8", 0.25, 7)]  # fmt: skip


def test_scale_and_bias_of_an_integer_product_are_no_float_weights() -> None:
    """As in a .tflite file, where they lie beside the weights; the norm in front has weights of its own."""
    nodes = [
        helper.make_node("Mul", ["x", "gamma"], ["n"]),
        helper.make_node("QuantizeLinear", ["n", "s", "z"], ["codes"]),
        helper.make_node("MatMulInteger", ["codes", "w", "z", "zw"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scales"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["y"]),
    ]
    constants = {"gamma": np.ones(8, np.float32), "s": np.float32(0.5), "z": np.uint8(7), "zw": np.int8(0)}
    constants |= {"w": np.ones((8, 4), np.int8), "scales": np.ones(4, np.float32), "bias": np.ones(4, np.float32)}
    truth = inspect_bytes(model(nodes, [1, 8], constants).SerializeToString(), "onnx").truth
    assert truth.int8_weight_share == 32 / (32 + 4 * 8)


@pytest.mark.parametrize("nested", [False, True])
def test_a_file_that_points_at_other_files_is_refused(nested: bool) -> None:
    """Also when the pointer hides in a branch of an If."""
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../../etc/hostname")
    made = model([helper.make_node("Relu", ["x"], ["y"])], [1], {})
    if nested:
        inner = helper.make_graph([helper.make_node("Constant", [], ["b"], value=outside)], "b", [], [])
        made.graph.node.append(helper.make_node("If", ["x"], ["i"], then_branch=inner, else_branch=inner))
    else:
        made.graph.initializer.append(outside)
    with pytest.raises(RequestError, match="keeps weights in other files"):
        inspect_bytes(made.SerializeToString(), "onnx")


def test_ops_of_a_foreign_library_are_refused() -> None:
    made = model([helper.make_node("Sly", ["x"], ["y"], domain="ai.evil")], [1], {}, domains=("ai.evil",))
    with pytest.raises(RequestError, match=r"Sly is of the op set 'ai\.evil'"):
        inspect_bytes(made.SerializeToString(), "onnx")


def test_float16_is_float32_where_the_runtime_has_no_such_kernel() -> None:
    """ONNX Runtime's CPU kernels of a convolution are float32: it puts casts around it."""
    node = [helper.make_node("Conv", ["x", "w"], ["y"])]
    made = model(node, [1, 3, 8, 8], {"w": np.zeros((4, 3, 3, 3), np.float16)},
                 dtype=TensorProto.FLOAT16, out_dtype=TensorProto.FLOAT16)  # fmt: skip
    (conv,) = (r for r in inspect_bytes(made.SerializeToString(), "onnx").records if r.macs)
    assert (conv.compute, conv.weight_dtype, conv.weight_bytes) == ("float32", "float16", 4 * 27 * 2)
