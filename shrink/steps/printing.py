"""The file of one target: its graph quantized, given its entrance, and printed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import fx

from device_runner.manifest import Input, Output
from shrink import quantize
from shrink.errors import ArtifactError, LoweringError, RecipeError
from shrink.export.bundle import image_input, scores_output
from shrink.export.names import Codes
from shrink.graph.edit import constant, is_constant
from shrink.graph.entrance import Layout, with_entrance
from shrink.graph.pixels import reads_levels
from shrink.inspect.ops import FLOAT
from shrink.inspect.truth import Inspection
from shrink.recipe import ExportRecipe
from shrink.steps.capturing import Lowered
from shrink.steps.loading import Job
from shrink.targets import Target


def check_input(recipe: ExportRecipe, target: Target) -> None:
    """Refuse floats for a target without floats.

    Raises:
        RecipeError: names the target.
    """
    if recipe.input == "float32" and target.io != "float32":
        why = "no float is left in its file, the input among them"
        raise RecipeError(f"{target.name} takes no float32 input", why, 'use int8 or uint8, or give no "input"')


def print_file(job: Job, target: Target, lowered: Lowered, chosen: quantize.Chosen | None) -> bytes:
    """The bytes of the file.

    Raises:
        LoweringError: an op that the format does not have, or pixels asked of a model that cannot take them so.
    """
    graph = lowered.graph
    if chosen is not None:
        unsigned = target.activation_codes == "uint8"
        graph = quantize.apply(chosen.graph, chosen.plan, unsigned=unsigned, pack_weights=target.format == "onnx")
    pixels = _pixels(job.recipe, target, lowered)
    normalization = (job.model.preprocess.mean, job.model.preprocess.std) if pixels else None
    graph = with_entrance(graph, layout=_layout(job.recipe, target), normalization=normalization)
    return _PRINTERS[target.format](graph, target, chosen, pixels)


def _print_onnx(graph: fx.GraphModule, target: Target, chosen: quantize.Chosen | None, pixels: Codes | None) -> bytes:
    from shrink.export.onnx import to_onnx

    return to_onnx(graph, quantized=chosen is not None, pixels=pixels, half=target.precision == "fp16")


def _print_tflite(graph: fx.GraphModule, target: Target, chosen: quantize.Chosen | None, pixels: Codes | None) -> bytes:
    from shrink.export.int16 import known
    from shrink.export.tflite import Form, to_tflite

    wide = None
    if chosen is not None and target.precision == "int16x8":
        wide = {key: numbers for held in _constants(chosen) for key, numbers in known(*held).items()}
    form = Form(
        pixels,
        half=target.precision == "fp16",
        only_codes=target.io == "int8",
        wide=wide,
    )
    return to_tflite(graph, quantized=chosen is not None, form=form)


_PRINTERS = {"onnx": _print_onnx, "tflite": _print_tflite}
"""format -> what writes it; imported on use, for each brings its runtime, and one may not be installed."""


def ports(job: Job, target: Target, lowered: Lowered, found: Inspection) -> tuple[Input, Output]:
    """What the manifest says of input and output; scales of integers are those of the file."""
    layout, pixels = _layout(job.recipe, target), _pixels(job.recipe, target, lowered)
    (given,), (answered,) = found.contract.inputs, found.contract.outputs
    spec = image_input(job.model.input_shape, layout, pixels)
    if pixels is None and target.io != "float32":
        spec = image_input(job.model.input_shape, layout, "int8", (given.scale, given.zero_point))
    codes = None if target.io == "float32" else (answered.scale, answered.zero_point)
    return spec, scores_output(job.model.outputs, codes)


def check_integers(target: Target, found: Inspection) -> None:
    """Read from the file that no float is left in it, where the target says so.

    Raises:
        ArtifactError: names the first op with a float.
    """
    if target.io == "float32":
        return
    for record in found.records:
        if record.compute in FLOAT or "float" in " ".join((*record.input_dtypes, record.output_dtype)):
            raise ArtifactError(
                f"{target.name}: {record.op}, op {record.index} of the file, has floats",
                f"its inputs are {', '.join(record.input_dtypes)}, its output is {record.output_dtype}",
                "report this model: a conversion is wrong",
            )


def entered(spec: Input) -> tuple[str, ...]:
    """What was done for the input, in words."""
    return () if spec.values == "normalized" else (f"takes {spec.dtype} pixels; the model normalizes them",)


def halved(target: Target, found: Inspection) -> tuple[str, ...]:
    """What the runtime computes in is what its own graph says, for most of the multiply-accumulates."""
    if target.precision != "fp16":
        return ()
    macs: dict[str, int] = {}
    for record in found.records:
        macs[record.compute] = macs.get(record.compute, 0) + record.macs
    return (f"weights in 16-bit float; {target.engine} on this host computes in {max(macs, key=lambda c: macs[c])}",)


def _constants(chosen: quantize.Chosen) -> Iterator[tuple[float, int, NDArray[np.float32]]]:
    """Scale, zero point and numbers of the constants that are held in codes."""
    held = chosen.plan.codes
    for node in chosen.graph.graph.nodes:
        if is_constant(node) and node.name in held:
            codes = held[node.name]
            yield codes.scale, codes.zero_point, constant(chosen.graph, node).numpy()


def _layout(recipe: ExportRecipe, target: Target) -> Layout:
    layouts: dict[str, Layout] = {"nhwc": "NHWC", "nchw": "NCHW"}
    return layouts[recipe.layout] if recipe.layout else target.layout


def _pixels(recipe: ExportRecipe, target: Target, lowered: Lowered) -> Codes | None:
    """dtype of a file that takes pixels; None for one that takes normalized values."""
    asked = recipe.input or target.io
    if asked == "float32":
        return None
    if target.io == "float32" or reads_levels(lowered.graph):
        return asked
    if recipe.input is None:
        return None
    raise LoweringError(
        f"{target.name} cannot take {asked} pixels for this model",
        "the image does not go to one ordinary convolution first, into which the normalization could be folded",
        'give no "input": the file then takes normalized values as int8 codes, which the runner computes',
    )
