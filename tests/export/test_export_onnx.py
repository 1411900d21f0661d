"""The .onnx file itself: what ONNX Runtime makes of it, its names, and that it is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from export_nets import CLASSES, SHAPE, Printed, images, printed
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from device_runner.engines import open_engine
from shrink import quantize
from shrink.export.onnx import to_onnx
from shrink.export.onnx_names import number_values
from shrink.export.onnx_spelling import OPSET
from shrink.graph.capture import capture
from shrink.quantize.plan import make_plan
from shrink.quantize.ranges import observe
from shrink.targets import load

Printer = Callable[..., Printed]
FILES = [("cnn", None), ("cnn", "static"), ("vit", None), ("vit", "static")]


def optimized(file: bytes, folder: Path) -> Counter[str]:
    """Ops after ONNX Runtime's own fusions."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def integer_products(ops: Counter[str]) -> int:
    return sum(ops[name] for name in ("QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"))


LINEARS = 7  # queries, keys, values, out, two of the MLP, head


@pytest.mark.parametrize("border", ["static", "dynamic"])
def test_every_linear_is_an_integer_product_in_onnx_runtime(made: Printer, tmp_path: Path, border: str) -> None:
    ops = optimized(made("vit", "onnx-int8", border).file, tmp_path)
    patches = 1  # by `patches_to_linear`
    assert integer_products(ops) == LINEARS + patches
    assert ops["Conv"] == ops["Gemm"] == 0
    assert ops["MatMul"] + ops["FusedMatMul"] == 2  # of two activations
    if border == "dynamic":
        assert (ops["DynamicQuantizeLinear"], ops["MatMulIntegerToFloat"]) == (1, 3)  # codes of the input are made once
        assert ops["DynamicQuantizeMatMul"] == LINEARS - 3 + patches


def test_a_gate_is_made_of_codes(made: Printer, tmp_path: Path) -> None:
    """Of a ReduceMean between codes ONNX Runtime makes three ops: to floats, their mean, and back."""
    ops = optimized(made("gated", "onnx-int8").file, tmp_path)
    assert (ops["QLinearGlobalAveragePool"], ops["Resize"], ops["QLinearMul"]) == (1, 1, 2)
    assert (ops["QuantizeLinear"], ops["DequantizeLinear"]) == (1, 1)  # of the image, and before the head


def test_branches_are_added_as_codes(made: Printer, tmp_path: Path) -> None:
    """A ReduceSum of what was stacked is in float; of a softmax from codes to codes a tenth is one code too low."""
    ops = optimized(made("selective", "onnx-int8").file, tmp_path)
    assert ops["ReduceSum"] == ops["Concat"] == ops["QLinearConcat"] == ops["QLinearSoftmax"] == 0
    assert (ops["QLinearAdd"], ops["QLinearMul"]) == (2, 2)
    assert ops["QuantizeLinear"] == 2  # of the image, and of the weights


@pytest.mark.parametrize(
    ("mean", "pools"),
    [
        (lambda x: x.mean((2, 3), keepdim=True), 1),
        (lambda x: x.mean((-1, -2), keepdim=True), 1),
        (lambda x: x.mean((2, 3)), 0),
        (lambda x: x.mean((1, 2), keepdim=True), 0),
        (lambda x: x.mean(None, keepdim=True), 0),
        (lambda x: x.flatten(2).mean(2, keepdim=True), 0),
    ],
)
def test_a_mean_over_all_places_is_a_pool(mean: Callable[[Tensor], Tensor], pools: int) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return mean(x).flatten(1)

    file = to_onnx(capture(Net().eval(), SHAPE))
    assert [node.op_type for node in onnx.load_from_string(file).graph.node].count("GlobalAveragePool") == pools
    image = images(1, seed=2)[0]
    np.testing.assert_allclose(
        open_engine(file, "onnx").run(image.numpy()), mean(image).flatten(1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("norm", "places"),
    [
        (nn.GroupNorm(1, 8), (5, 7)),
        (nn.GroupNorm(4, 8, affine=False, eps=0.1), (5, 7)),
        (nn.GroupNorm(8, 8), (5,)),
        (nn.GroupNorm(2, 8), ()),
        (nn.InstanceNorm2d(8, affine=True), (5, 7)),
    ],
    ids=str,
)
def test_a_group_norm_runs_in_one_kernel(norm: nn.Module, places: tuple[int, ...], tmp_path: Path) -> None:
    """ONNX Runtime works out the shapes of a GroupNormalization on every run."""
    torch.manual_seed(0)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn((1, 8, *places), generator=torch.Generator().manual_seed(1)) * 3 + 2
    file = to_onnx(capture(norm.eval(), tuple(x.shape)))
    ops = optimized(file, tmp_path)
    assert ops["InstanceNormalization"] == 1 and ops["Shape"] == ops["ReduceMean"] == 0
    np.testing.assert_allclose(open_engine(file, "onnx").run(x.numpy()), norm(x).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["onnx-fp32", "onnx-int8"])
def test_convolutions_pad_themselves(made: Printer, tmp_path: Path, target: str) -> None:
    """ONNX Runtime does not let them where codes are between."""
    ops = optimized(made("sided", target).file, tmp_path)
    assert ops["Pad"] == 0
    assert target == "onnx-fp32" or (ops["QLinearConv"], ops["QuantizeLinear"]) == (3, 1)


@pytest.mark.parametrize(
    ("pads", "value"), [((1, 1, 1, 1), 0.5), ((-1, 2, 1, 1), 0.0), ((1, 1, 0, 0, 1, 0), 0.0), ((1, 2), 0.0)], ids=str
)
def test_a_padding_with_something_else_stays(pads: tuple[int, ...], value: float) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3 + sum(pads[4:]), 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.pad(x, pads, value=value)).mean((2, 3))

    net, image = Net().eval(), images(1, seed=2)[0]
    file = to_onnx(capture(net, SHAPE))
    kept = [node.op_type for node in onnx.load_from_string(file).graph.node].count("Pad")
    assert kept == (0 if pads == (1, 2) else 1)
    np.testing.assert_allclose(open_engine(file, "onnx").run(image.numpy()), net(image).detach(), rtol=1e-4, atol=1e-5)


def test_a_file_of_codes_names_what_layers_give(made: Printer) -> None:
    """The rest is numbered: three values and their constants to each value of a float file."""
    graph = onnx.load_from_string(made("cnn", "onnx-int8").file).graph
    coders = {"QuantizeLinear", "DequantizeLinear"}
    layers = [name for node in graph.node if node.op_type not in coders for name in node.output]
    others = [name for node in graph.node if node.op_type in coders for name in node.output]
    others += [tensor.name for tensor in graph.initializer]
    assert "conv2d" in layers and not any(name.isdigit() for name in layers)
    assert sorted(map(int, others)) == list(range(len(others)))
    assert not any(node.name for node in graph.node)


def test_a_graph_within_the_graph_keeps_the_names_it_reads() -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["held"], ["y"])], "inner", [], [_value("y")])
    choice = helper.make_node("If", ["yes"], ["output"], then_branch=inner, else_branch=inner)
    constants = [
        numpy_helper.from_array(np.ones(2, np.float32), "held"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    graph = helper.make_graph([choice], "outer", [_value("input")], [_value("output")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    number_values(model)
    file = model.SerializeToString()
    np.testing.assert_array_equal(open_engine(file, "onnx").run(np.zeros(2, np.float32)), np.ones(2))


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])


def test_a_range_for_each_row_is_what_was_simulated() -> None:
    """Rows of skewed values, such as behind a GELU, one of them far larger than the others."""
    net = nn.Sequential(nn.GELU(), nn.Linear(24, 7)).eval()
    shape, target = (1, 9, 24), load("onnx-int8")
    graph_module = capture(net, shape)
    scheme = quantize.schemes(graph_module.graph, target)["dynamic"]
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0] * 8 + [100.0])[:, None]
    ranges = observe(graph_module, {*scheme.values, *scheme.dynamic.values()}, [rows])
    for every_row, close in ((True, 1e-3), (False, 1e-5)):
        plan = make_plan(scheme, ranges, every_row=every_row)
        assert bool(plan.rows) == every_row
        quantized = quantize.apply(graph_module, plan, unsigned=True, pack_weights=True)
        given = open_engine(to_onnx(quantized), "onnx").run(rows.numpy())
        with torch.no_grad():
            wanted = quantize.simulation(quantized)(rows).numpy()
        assert (np.abs(given - wanted).max(2) <= close * np.abs(wanted).max(2)).all()


def test_every_convolution_is_an_integer_one_in_onnx_runtime(made: Printer, tmp_path: Path) -> None:
    ops = optimized(made("cnn", "onnx-int8", "static").file, tmp_path)
    assert ops["QLinearConv"] == 5 and ops["Conv"] == 0
    assert integer_products(ops) == 1


@pytest.mark.parametrize(("net", "border"), FILES)
def test_activations_are_uint8_and_weights_int8(made: Printer, net: str, border: str | None) -> None:
    graph = onnx.load_from_string(made(net, "onnx-int8", border).file).graph
    kinds = {value.name: value.data_type for value in graph.initializer}
    constants = {n.output[0]: n.attribute[0].t.data_type for n in graph.node if n.op_type == "Constant"}
    zeros = [n.input[2] for n in graph.node if n.op_type == "QuantizeLinear"]
    assert all((kinds | constants)[name] == TensorProto.UINT8 for name in zeros)
    weights = [v for v in graph.initializer if v.data_type == TensorProto.INT8 and len(v.dims) > 1]
    assert len(weights) == {"cnn": 6, "vit": LINEARS + 1}[net]
    floats = [v for v in graph.initializer if v.data_type == TensorProto.FLOAT]
    assert max(np.prod(v.dims) for v in floats) <= 17 * 16  # no weight is left in float; positions are


@pytest.mark.parametrize(("net", "target"), [("cnn", "onnx-fp32"), ("vit", "onnx-int8"), ("cnn", "onnx-int8")])
def test_the_file_is_whole_and_named_like_all_bundles(made: Printer, net: str, target: str) -> None:
    file = made(net, target).file
    model = onnx.load_from_string(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [("", OPSET)]
    assert all(value.data_location == TensorProto.DEFAULT for value in model.graph.initializer)
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, given.type) == ("image", list(SHAPE), "tensor(float)")
    assert (answered.name, answered.shape, answered.type) == ("scores", [1, CLASSES], "tensor(float)")


def test_nothing_of_the_machine_it_was_made_on_is_in_the_file(made: Printer) -> None:
    file = made("cnn", "onnx-fp32").file
    assert str(Path(__file__).parents[2]).encode() not in file
    model = onnx.load_from_string(file)
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not model.metadata_props and not model.graph.metadata_props


def test_two_exports_are_the_same_bytes(made: Printer) -> None:
    assert printed("classic", "onnx-int8").file == made("classic", "onnx-int8").file


class Namesakes(nn.Module):
    """Its weights are called what input and output of every bundle are called."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.scores = nn.Parameter(torch.randn(3, 1, 1)), nn.Parameter(torch.randn(768, CLASSES))

    def forward(self, scores: Tensor) -> Tensor:
        return (scores * self.image).flatten(1) @ self.scores


def test_weights_named_image_and_scores_are_no_trouble() -> None:
    net = Namesakes().eval()
    engine = open_engine(to_onnx(capture(net, SHAPE)), "onnx")
    (image,) = images(1, seed=2)
    with torch.no_grad():
        wanted = net(image).numpy()
    np.testing.assert_allclose(engine.run(image.numpy()), wanted, rtol=1e-4, atol=1e-4)


def test_printing_leaves_the_graph_as_it_is(made: Printer) -> None:
    graph_module = capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(1024, CLASSES)).eval(), SHAPE)
    before = graph_module.code
    to_onnx(graph_module)
    assert graph_module.code == before


@pytest.mark.parametrize(("net", "border"), FILES)
def test_every_weight_has_a_zero_point_of_its_own(made: Printer, net: str, border: str | None) -> None:
    """Or ONNX Runtime refuses exact sums on x86 without VNNI."""
    graph = onnx.load_from_string(made(net, "onnx-int8", border).file).graph
    held = {tensor.name for tensor in graph.initializer}
    zeros = [n.input[2] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in held]
    assert len(set(zeros)) == len(zeros)
    assert held <= {name for node in graph.node for name in node.input}
