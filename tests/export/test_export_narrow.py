"""16-bit weights in the file, 32-bit floats in the runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from export_nets import SHAPE, Printed, images, scores
from torch import Tensor, fx, nn

from device_runner.engines import open_engine
from shrink.errors import LoweringError
from shrink.export.narrow import check_half
from shrink.export.onnx import to_onnx
from shrink.export.onnx_narrow import narrow_onnx_tables
from shrink.export.tflite import to_tflite
from shrink.export.tflite_narrow import narrow_tables
from shrink.graph.capture import capture
from shrink.graph.tables import LEAST, on_grid
from shrink.inspect.truth import inspect_bytes

Printer = Callable[..., Printed]
FILES = [("vit", "tflite"), ("vit", "onnx")]


def rounded(module: nn.Module) -> nn.Module:
    """The graph's module with every large constant rounded to 16 bits."""
    result = copy.deepcopy(module)
    for tensor in (*result.parameters(), *result.buffers()):
        if tensor.numel() >= LEAST and tensor.dtype is torch.float32:
            tensor.data = tensor.data.half().float()
    return result


@pytest.mark.parametrize(("net", "form"), FILES)
def test_it_computes_in_32_bits_from_weights_of_16(made: Printer, net: str, form: str) -> None:
    """The answers are those of the rounded weights to a float's last bits: half precision would be 100 times off."""
    half = made(net, f"{form}-fp16")
    shown = images(6, seed=3)
    given, wanted = half.answers(shown), scores(rounded(half.simulated), shown)
    scale = np.abs(wanted).max()
    assert np.abs(given - wanted).max() < 1e-5 * scale
    assert np.abs(given - scores(half.simulated, shown)).max() > 2e-5 * scale  # the weights are rounded indeed


@pytest.mark.parametrize(("net", "form"), FILES)
def test_the_runtime_computes_in_float32_and_the_file_is_smaller(made: Printer, net: str, form: str) -> None:
    half, full = made(net, f"{form}-fp16"), made(net, f"{form}-fp32")
    assert len(half.file) < len(full.file)
    found = inspect_bytes(half.file, half.target.format)
    assert {record.compute for record in found.records if record.macs} == {"float32"}
    if form == "tflite":
        assert found.truth.delegate_partitions == 1 and not found.truth.undelegated_ops


def test_large_weights_take_half_the_bytes() -> None:
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Conv2d(3, 64, 3, 2), nn.Conv2d(64, 64, 3), nn.Flatten()).eval(), SHAPE)
    assert len(to_onnx(graph, half=True)) < 0.55 * len(to_onnx(graph))


def test_a_weight_that_would_become_infinite_is_refused_with_its_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3)), nn.Flatten()).eval()
    with torch.no_grad():
        net[1][0].weight[0, 0, 0, 0] = 65503.0
    check_half(capture(net, SHAPE))
    with torch.no_grad():
        net[1][0].weight[0, 0, 0, 0] = -1e5
    with pytest.raises(LoweringError, match=r"layer '1\.0' does not fit into a 16-bit float") as caught:
        check_half(capture(net, SHAPE))
    assert "8-bit" in caught.value.fix


class Tables(nn.Module):
    """Adds a large table whose first number is given."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.table, self.mix = nn.Parameter(torch.rand(1, 3, 40, 40)), nn.Conv2d(3, 160, 3)
        self.table.data[0, 0, 0, 0] = largest

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x + self.table).mean((2, 3))


def onnx_with_tables(graph: fx.GraphModule, narrowed: bool) -> bytes:
    model = onnx.load_from_string(to_onnx(graph))
    if narrowed:
        narrow_onnx_tables(model)
    return bytes(model.SerializeToString())


def tflite_with_tables(graph: fx.GraphModule, narrowed: bool) -> bytes:
    file = to_tflite(graph, quantized=False)
    return narrow_tables(file) if narrowed else file


FORMS = [("tflite", tflite_with_tables), ("onnx", onnx_with_tables)]


@pytest.mark.parametrize(("form", "printed"), FORMS)
@pytest.mark.parametrize(("largest", "kept"), [(1.0, False), (1e5, True)])
def test_a_table_is_held_in_16_bits_where_it_fits_and_weights_are_not(
    form: str, printed: Callable[[fx.GraphModule, bool], bytes], largest: float, kept: bool
) -> None:
    graph = capture(Tables(largest).eval(), (1, 3, 40, 40))
    file, made = (printed(graph, narrowed) for narrowed in (False, True))
    assert (made == file) == kept
    if not kept:
        assert 3 * 40 * 40 * 2 - 500 < len(file) - len(made) <= 3 * 40 * 40 * 2
        x = np.random.default_rng(0).random((1, 3, 40, 40), np.float32)
        given, wanted = open_engine(made, form).run(x), open_engine(file, form).run(x)
        assert 0 < np.abs(given - wanted).max() < 2**-11 * np.abs(wanted).max()
        found = inspect_bytes(made, form)
        assert {record.compute for record in found.records if record.macs} == {"float32"}
        assert form == "onnx" or (found.truth.delegate_partitions, found.truth.undelegated_ops) == (1, ())


@pytest.mark.parametrize(("form", "printed"), FORMS)
def test_a_table_of_numbers_too_small_for_16_bits_stays(
    form: str, printed: Callable[[fx.GraphModule, bool], bytes]
) -> None:
    net = Tables(1.0).eval()
    net.table.data *= 1e-6
    graph = capture(net, (1, 3, 40, 40))
    assert printed(graph, True) == printed(graph, False)


@pytest.mark.parametrize(("form", "printed"), FORMS)
@pytest.mark.parametrize("factor", [1.0, 1e-7])
def test_numbers_per_channel_stay(form: str, printed: Callable[[fx.GraphModule, bool], bytes], factor: float) -> None:
    class PerChannel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.shift = (nn.Parameter(torch.rand(4096) * factor) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(1, 4, 4096) * self.scale + self.shift

    graph = capture(PerChannel().eval(), (1, 1, 128, 128))
    assert printed(graph, True) == printed(graph, False)


@pytest.mark.parametrize(("form", "printed"), FORMS)
def test_a_table_on_a_grid_is_held_in_8_bits_and_nothing_changes(
    form: str, printed: Callable[[fx.GraphModule, bool], bytes]
) -> None:
    graph, count = on_grid(capture(Tables(1.0).eval(), (1, 3, 40, 40)), ())
    file, made = (printed(graph, narrowed) for narrowed in (False, True))
    assert count == 1 and 3 * 40 * 40 * 3 - 900 < len(file) - len(made) <= 3 * 40 * 40 * 3
    x = np.random.default_rng(0).random((1, 3, 40, 40), np.float32)
    np.testing.assert_array_equal(open_engine(made, form).run(x), open_engine(file, form).run(x))
    found = inspect_bytes(made, form)
    assert {record.compute for record in found.records if record.macs} == {"float32"}
    assert form == "onnx" or (found.truth.delegate_partitions, found.truth.undelegated_ops) == (1, ())


def test_a_table_that_two_shapes_share_is_right_in_both() -> None:
    """Codes of steps per row are others than those of steps per column."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randint(-127, 128, (16, 16)) * 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.table + self.table.reshape(1, 1, 1, 256).mean()) * self.table.reshape(1, 16, 16)

    file = to_tflite(capture(Twice().eval(), (1, 3, 16, 16)), quantized=False)
    x = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    wanted = open_engine(file, "tflite").run(x)
    np.testing.assert_array_equal(open_engine(narrow_tables(file), "tflite").run(x), wanted)
