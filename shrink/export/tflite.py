"""Print a graph as a .tflite file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from shrink.export.clamps import without_clamps
from shrink.export.culprit import lowering_error
from shrink.export.flatbuffer import compact, parse
from shrink.export.float_ops import in_float
from shrink.export.hybrid import read_codes, strict
from shrink.export.int16 import Key, Numbers, widen
from shrink.export.joins import short_joins
from shrink.export.names import Codes
from shrink.export.narrow import check_half
from shrink.export.pads import pads_in_place
from shrink.export.ports import only_codes, take_pixels
from shrink.export.products import join_products
from shrink.export.tflite_narrow import halve_tflite, narrow_tables
from shrink.graph.shapes import input_shape


@dataclass(frozen=True, slots=True)
class Form:
    """What a file is, beyond what its graph says.

    Attributes:
        pixels: dtype of a file that takes grey levels, as the graph must; None: it takes floats.
        half: whether the weights are held in 16 bits.
        only_codes: whether codes go in and come out, with no op between them and the rest.
        wide: makes activations 16 bits wide; the numbers behind 8-bit constants.
    """

    pixels: Codes | None = None
    half: bool = False
    only_codes: bool = False
    wide: Mapping[Key, Numbers] | None = None


def to_tflite(graph_module: fx.GraphModule, *, quantized: bool, form: Form = Form()) -> bytes:
    """Convert a float graph, or one with quantize and dequantize nodes, to TFLite.

    Args:
        graph_module: of one image, in the layout that the file is to take.
        quantized: whether the graph holds quantize and dequantize nodes.
        form: what the file is.

    Raises:
        LoweringError: the converter has no form for an op, which is named; or a weight does not fit into 16 bits.
    """
    if form.half:
        check_half(graph_module)
    if quantized and form.wide is None:  # 16-bit codes are symmetric: they reach below the end of a ReLU
        graph_module = without_clamps(graph_module)
    import litert_torch  # for its configuration
    from litert_torch.quantize import pt2e_quantizer
    from litert_torch.quantize.quant_config import QuantConfig

    config = None
    if quantized:
        # "dynamic" keeps 8-bit weights behind float activations, which "static" turns back into
        # float weights; ops between quantize and dequantize nodes become int8 under both.
        any_config = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
        config = QuantConfig(pt2e_quantizer=pt2e_quantizer.PT2EQuantizer().set_global(any_config))
    example = torch.zeros(input_shape(graph_module))
    with _quiet(), pads_in_place(), strict() if quantized else contextlib.nullcontext():
        litert_torch.config.show_progress = False
        try:
            model = _converted(graph_module.eval(), (example,), quant_config=config)
        except Exception as error:  # the converter raises many unrelated types; this is the border
            fix = "replace that op in the model by one the format has, or export to ONNX"
            raise lowering_error(graph_module, _converted, "TFLite", fix, error) from error
    mixed = quantized and form.wide is None and not form.only_codes
    narrow = quantized and form.wide is None
    rewrites = (
        (quantized, read_codes), (narrow, narrow_tables), (True, join_products), (mixed, in_float),
        (form.half, halve_tflite), (not form.only_codes, short_joins),
    )  # fmt: skip
    for wanted, rewrite in rewrites:
        model = rewrite(model) if wanted else model
    model = model if form.wide is None else widen(model, form.wide)
    model = take_pixels(model, form.pixels) if form.pixels else model
    return compact(only_codes(model) if form.only_codes else model)


def _converted(graph_module: fx.GraphModule, example: tuple[Tensor, ...], **options: Any) -> bytes:
    """One conversion; what the converter writes as a graph within the graph, such as a scatter, runs nowhere fast."""
    import litert_torch

    model: bytes = litert_torch.convert(graph_module, example, **options).model_content()
    if (count := len(parse(model).subgraphs)) > 1:
        raise ValueError(f"the converter writes {count} graphs, one within the other")
    return model


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
