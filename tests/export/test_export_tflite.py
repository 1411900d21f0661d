"""The .tflite file itself: small, named, aligned, and the same numbers as the converter's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from export_nets import CLASSES, SHAPE, Printed, images, printed
from torch import Tensor, fx, nn

from device_runner.engines import open_engine
from shrink import quantize
from shrink.errors import LoweringError
from shrink.export.flatbuffer import ALIGNMENT, compact
from shrink.export.onnx import to_onnx
from shrink.export.tflite import to_tflite
from shrink.graph.capture import capture
from shrink.graph.lower import lower
from shrink.inspect.truth import inspect_bytes
from shrink.quantize.plan import make_plan
from shrink.quantize.ranges import observe
from shrink.targets import Target, load

Printer = Callable[..., Printed]
FILES = [("cnn", "tflite-int8"), ("vit", "tflite-int8"), ("classic", "tflite-int8"), ("cnn", "tflite-fp32")]

every_file = pytest.mark.parametrize(("net", "target"), FILES, ids="-".join)


def tree(file: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(bytearray(file), 0)


def meaning(file: bytes) -> list[Any]:
    """Everything a runtime computes with: ops with their options, and tensors with their data, in order."""
    model = tree(file)
    (graph,) = model.subgraphs
    tensors = [
        (
            [*t.shape] if t.shape is not None else None,
            t.type,
            b"" if (data := model.buffers[t.buffer].data) is None else bytes(data),
            None if t.quantization is None or t.quantization.scale is None else t.quantization.scale.tolist(),
            None if t.quantization is None or t.quantization.zeroPoint is None else t.quantization.zeroPoint.tolist(),
        )
        for t in graph.tensors
    ]
    ops = [
        (
            model.operatorCodes[op.opcodeIndex].builtinCode,
            [*op.inputs],
            [*op.outputs],
            None if op.builtinOptions is None else sorted((k, str(v)) for k, v in vars(op.builtinOptions).items()),
        )
        for op in graph.operators
    ]
    return [tensors, ops, [*graph.inputs], [*graph.outputs]]


@every_file
def test_compacting_keeps_every_number(made: Printer, net: str, target: str) -> None:
    item = made(net, target)
    assert meaning(item.file) == meaning(item.raw)


@every_file
def test_compacting_keeps_the_answers_bit_for_bit(made: Printer, net: str, target: str) -> None:
    item = made(net, target)
    shown = images(6, seed=3)
    assert np.array_equal(item.answers(shown), item.answers(shown, item.raw))


@every_file
def test_the_compact_file_is_smaller_and_compact_for_good(made: Printer, net: str, target: str) -> None:
    item = made(net, target)
    assert len(item.file) < len(item.raw)
    assert compact(item.file) == item.file


@every_file
def test_the_file_is_a_tflite_file_with_the_names_of_all_bundles(made: Printer, net: str, target: str) -> None:
    file = made(net, target).file
    assert file[4:8] == b"TFL3"
    interpreter = Interpreter(model_content=file)
    (given,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["name"], given["dtype"], [*given["shape"]]) == ("image", np.float32, [1, 16, 16, 3])
    assert (answered["name"], answered["dtype"], [*answered["shape"]]) == ("scores", np.float32, [1, CLASSES])
    (signature,) = interpreter.get_signature_list().values()
    assert signature == {"inputs": ["image"], "outputs": ["scores"]}
    (graph,) = tree(file).subgraphs
    names = [t.name.decode() for t in graph.tensors]
    assert len(set(names)) == len(names) and max(map(len, names)) <= len("scores")


@every_file
def test_every_buffer_is_aligned(made: Printer, net: str, target: str) -> None:
    """The schema asks for 16 bytes; runtimes map weights from the file and read them with vector instructions."""
    file = made(net, target).file
    model = schema.Model.GetRootAs(file, 0)
    seen = 0
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        field = buffer._tab.Offset(4)  # of `data`
        if field and buffer.DataLength():
            assert buffer._tab.Vector(field) % ALIGNMENT == 0
            seen += 1
    assert seen > 3


def test_equal_vectors_are_written_once(made: Printer) -> None:
    """Zero points of all channels of all layers are zeros; so are biases that were not there."""
    file = made("cnn", "tflite-int8").file
    model = schema.Model.GetRootAs(file, 0)
    graph = model.Subgraphs(0)
    places: dict[bytes, set[int]] = {}
    for index in range(graph.TensorsLength()):
        quantization = graph.Tensors(index).Quantization()
        if quantization is not None and quantization.ZeroPointLength():
            place = quantization._tab.Vector(quantization._tab.Offset(10))  # of `zero_point`
            places.setdefault(quantization.ZeroPointAsNumpy().tobytes(), set()).add(place)
    assert any(content.strip(b"\0") == b"" for content in places)
    assert all(len(where) == 1 for where in places.values())


def test_two_exports_are_the_same_bytes(made: Printer) -> None:
    assert printed("classic", "tflite-int8").file == made("classic", "tflite-int8").file


def test_weights_are_int8_per_channel_and_activations_int8(made: Printer) -> None:
    (graph,) = tree(made("cnn", "tflite-int8").file).subgraphs
    kinds = Counter(t.type for t in graph.tensors)
    assert kinds[schema.TensorType.INT8] > kinds[schema.TensorType.FLOAT32]
    weights = [t for t in graph.tensors if t.quantization is not None and t.quantization.scale is not None
               and len(t.quantization.scale) > 1 and t.type == schema.TensorType.INT8]  # fmt: skip
    assert len(weights) == 6
    assert not any(t.quantization.zeroPoint.any() for t in weights)


# --- what the format has not


class Gamma(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.lgamma(x)


def with_gamma(target: Target) -> fx.GraphModule:
    """Two int8 convolutions, and an op that neither format has in the third layer."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Sequential(Gamma()), nn.Flatten())
    graph_module = capture(net.eval(), SHAPE)
    (scheme,) = quantize.schemes(graph_module.graph, target).values()
    assert len(scheme.static) == 2
    ranges = observe(graph_module, {*scheme.values, *scheme.dynamic.values()}, images(2, seed=1))
    return quantize.apply(graph_module, make_plan(scheme, ranges, every_row=False), pack_weights=True)


@pytest.mark.parametrize("form", ["TFLite", "ONNX"])
def test_an_op_that_a_format_has_not_is_named_with_its_layer(form: str) -> None:
    graph_module = with_gamma(load(f"{form.lower()}-int8"))
    before = graph_module.code
    words = rf"aten\.lgamma\.default in layer '2\.0' cannot be written as {form}"
    with pytest.raises(LoweringError, match=words) as caught:
        to_onnx(graph_module) if form == "ONNX" else to_tflite(graph_module, quantized=True)
    assert caught.value.exit_code == 1 and "\x1b" not in str(caught.value)
    assert {"TFLite": "ONNX", "ONNX": "TFLite"}[form] in caught.value.fix
    assert graph_module.code == before


def test_an_op_that_becomes_a_graph_within_the_graph_is_named() -> None:
    """Sums of overlapping windows with gaps are a scatter, whose addition is a graph of its own."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.fold(x.reshape(1, 12, 16), (6, 6), 2, dilation=2).flatten(1)

    graph_module = capture(Net(), (1, 3, 8, 8))
    lower(graph_module, load("tflite-fp32").lower)
    with pytest.raises(LoweringError, match=r"aten\.col2im\.default in layer .* cannot be written as TFLite") as caught:
        to_tflite(graph_module, quantized=False)
    assert "one within the other" in caught.value.why


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 5), (7, 13)), ((3, 4), (7, 8)), ((7, 14), (3, 5)), ((4, 4), (8, 12)), ((2, 3), (16, 18)), ((3, 2), (3, 14))],
)
@pytest.mark.parametrize("by_factor", [False, True])
def test_a_nearest_resize_takes_the_places_that_pytorch_takes(
    before: tuple[int, int], after: tuple[int, int], by_factor: bool
) -> None:
    """By a broken ratio RESIZE_NEAREST_NEIGHBOR takes others."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            factors = tuple((new + 0.3) / old for old, new in zip(before, after, strict=True))
            how = {"scale_factor": factors} if by_factor else {"size": after}
            return nn.functional.interpolate(x, mode="nearest", **how).flatten(1)

    graph_module = capture(Net(), (1, 3, *before))
    lower(graph_module, load("tflite-fp32").rewrites)
    x = torch.arange(3.0 * before[0] * before[1]).reshape(1, 3, *before)
    model = to_tflite(graph_module, quantized=False)
    np.testing.assert_array_equal(open_engine(model, "tflite").run(x.numpy()), Net()(x).numpy())
    whole = not by_factor and all(new % old == 0 for old, new in zip(before, after, strict=True))
    found = {record.op for record in inspect_bytes(model, "tflite").records}
    assert "RESIZE_NEAREST_NEIGHBOR" not in found and ("GATHER_ND" not in found or not whole)
