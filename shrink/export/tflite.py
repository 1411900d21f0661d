"""Print a graph as a .tflite file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import fx

from shrink.export.culprit import lowering_error
from shrink.export.flatbuffer import compact
from shrink.export.ports import Codes, take_pixels
from shrink.graph.shapes import input_shape


def to_tflite(graph_module: fx.GraphModule, *, quantized: bool, pixels: Codes | None = None) -> bytes:
    """Convert a float graph, or one with quantize and dequantize nodes, to TFLite.

    Args:
        graph_module: of one image, in the layout that the file is to take.
        quantized: whether the graph holds quantize and dequantize nodes.
        pixels: dtype of a file that takes grey levels, as the graph must; None: the file takes floats.

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
    example = torch.zeros(input_shape(graph_module))
    with _quiet():
        litert_torch.config.show_progress = False
        try:
            model = litert_torch.convert(graph_module.eval(), (example,), quant_config=config).model_content()
        except Exception as error:  # the converter raises many unrelated types; this is the border
            fix = "replace that op in the model by one the format has, or export to ONNX"
            raise lowering_error(graph_module, litert_torch.convert, "TFLite", fix, error) from error
    return compact(model if pixels is None else take_pixels(model, pixels))


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
