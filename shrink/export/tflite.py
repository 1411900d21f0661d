"""Print a graph as a .tflite file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import fx, nn

from shrink.export.culprit import lowering_error
from shrink.export.flatbuffer import compact
from shrink.graph.shapes import input_shape


class ChannelsLast(nn.Module):
    """Takes (1, H, W, C), the layout cameras and TFLite have, and hands the graph (1, C, H, W)."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__()
        self.graph_module = graph_module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.graph_module(image.permute(0, 3, 1, 2))
        return scores


def to_tflite(graph_module: fx.GraphModule, *, quantized: bool) -> bytes:
    """Convert a float graph, or one with quantize and dequantize nodes, to TFLite.

    Args:
        graph_module: graph of one image (1, C, H, W) float32; the file takes (1, H, W, C).
        quantized: whether the graph holds quantize and dequantize nodes.

    Raises:
        LoweringError: the converter has no form for an op, which is named.
    """
    import litert_torch
    from litert_torch.quantize import pt2e_quantizer
    from litert_torch.quantize.quant_config import QuantConfig

    config = None
    if quantized:
        # "dynamic" keeps 8-bit weights behind float activations, which "static" turns back into
        # float weights; ops between quantize and dequantize nodes become int8 under both.
        any_config = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
        config = QuantConfig(pt2e_quantizer=pt2e_quantizer.PT2EQuantizer().set_global(any_config))
    _, channels, height, width = input_shape(graph_module)
    example = torch.zeros(1, height, width, channels)
    with _quiet():
        litert_torch.config.show_progress = False
        try:
            model = litert_torch.convert(ChannelsLast(graph_module).eval(), (example,), quant_config=config)
            return compact(model.model_content())
        except Exception as error:  # the converter raises many unrelated types; this is the border
            fix = "replace that op in the model by one the format has, or export to ONNX"
            raise lowering_error(graph_module, litert_torch.convert, "TFLite", fix, error) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter prints progress, warnings and deprecations that a user can do nothing about."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
