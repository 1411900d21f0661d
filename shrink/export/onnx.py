"""Print a graph as an .onnx file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import onnx
import torch
from torch import fx, nn

from shrink.errors import LoweringError
from shrink.export.flatbuffer import INPUT_NAME, OUTPUT_NAME
from shrink.graph.shapes import input_shape

OPSET = 21  # the first in which every 8-bit type of QuantizeLinear is settled


class OneTensor(nn.Module):
    """The graph with its single output taken out of the tuple."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__()
        self.graph_module = graph_module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        (scores,) = self.graph_module(image)
        return scores  # type: ignore[no-any-return]


def to_onnx(graph_module: fx.GraphModule) -> bytes:
    """Convert a float graph, or one with quantize and dequantize nodes, to ONNX.

    Raises:
        LoweringError: the converter has no form for an op, which is named.
    """
    example = torch.zeros(input_shape(graph_module))
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                OneTensor(graph_module).eval(), (example,), dynamo=True, opset_version=OPSET, optimize=True, verbose=False
            )
    except Exception as error:  # the exporter raises many unrelated types; this is the border
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise LoweringError(
            "the graph cannot be written as ONNX", first[:300], "replace that op in the model, or export to TFLite"
        ) from error
    finally:
        logging.disable(previous)
    model = program.model_proto
    _rename(model)
    return bytes(model.SerializeToString())


def _rename(model: onnx.ModelProto) -> None:
    """Give input and output the names that all bundles have, and drop what only a debugger reads."""
    names = {model.graph.input[0].name: INPUT_NAME, model.graph.output[0].name: OUTPUT_NAME}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.value_info[:]
