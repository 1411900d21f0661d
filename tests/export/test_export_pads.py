"""Padding in the layout of the image: the same numbers, and no turn of its axes around it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from export_nets import lively
from torch import Tensor, nn
from torch.nn import functional as F

from device_runner.engines import open_engine
from shrink.export.flatbuffer import parse
from shrink.export.pads import pad_nhwc, pads_in_place
from shrink.export.ports import code_of
from shrink.export.tflite import to_tflite
from shrink.graph.capture import capture

SHAPE = (1, 3, 12, 10)
PADS = [(1, 2, 3, 4), (1, 2), (0, 0, 2, 1), (1, 0, 0, 1, 2, 3), (1, 1, 1, 1, 0, 2, 0, 1)]


class Padded(nn.Module):
    def __init__(self, pads: tuple[int, ...], value: float) -> None:
        super().__init__()
        self.pads, self.value = pads, value
        self.stem = nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(4 + sum(pads[4:6]), 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.pad(F.relu(self.stem(x)), self.pads, value=self.value)).mean((2, 3), keepdim=True).flatten(1)


@pytest.mark.parametrize("value", [0.0, -1.5])
@pytest.mark.parametrize("pads", PADS[:-1], ids=str)
def test_a_padded_image_keeps_its_layout(pads: tuple[int, ...], value: float) -> None:
    torch.manual_seed(0)
    net = lively(Padded(pads, value))
    graph = capture(net, SHAPE)
    file = to_tflite(graph, quantized=False)
    tree = parse(file)
    ops = Counter(code_of(tree, op) for op in tree.subgraphs[0].operators)
    assert ops[schema.BuiltinOperator.TRANSPOSE] == 1  # of the image, which it is given in NCHW
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(open_engine(file, "tflite").run(x.numpy()), net(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pads", PADS, ids=str)
def test_it_pads_the_axes_that_are_meant(pads: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    given = pad_nhwc(x.permute(0, 2, 3, 1), pads, 0.5).permute(0, 3, 1, 2)
    assert torch.equal(given, F.pad(x, pads, value=0.5))


def test_the_library_is_left_as_it_was() -> None:
    from litert_torch._convert.fx_passes.optimize_layout_transposes_pass import layout_rewrite

    before = dict(layout_rewrite.rewriters)
    with pytest.raises(KeyError), pads_in_place():
        assert len(layout_rewrite.rewriters) > len(before)
        raise KeyError
    assert dict(layout_rewrite.rewriters) == before
