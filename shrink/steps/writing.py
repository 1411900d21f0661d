"""Fourth step: the file of every target, loaded in its runtime and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from device_runner.engines import open_engine
from device_runner.engines.base import Engine
from device_runner.errors import EngineError
from device_runner.manifest import DType, Input
from shrink import quantize
from shrink.errors import ArtifactError
from shrink.export.bundle import float_output, image_input
from shrink.export.onnx import to_onnx
from shrink.export.tflite import Form, to_tflite
from shrink.graph.entrance import Layout, with_entrance
from shrink.inspect.truth import Inspection, inspect_bytes
from shrink.progress import Stage
from shrink.recipe import ExportRecipe
from shrink.steps.calibrating import Calibrated
from shrink.steps.capturing import Lowered, Rules
from shrink.steps.loading import Job
from shrink.targets import Target
from shrink.verify.answers import Candidate


@dataclass(frozen=True, slots=True)
class Artifact:
    """The file of one target and what it is."""

    target: Target
    model: bytes
    candidate: Candidate  # the file, loaded
    inspection: Inspection
    changes: tuple[str, ...]
    declined: tuple[tuple[str, str], ...]  # (what, why)


def write(job: Job, graphs: Mapping[Rules, Lowered], calibrated: Calibrated, stage: Stage) -> dict[str, Artifact]:
    """Every file of the job, float twins among them, by target.

    Raises:
        LoweringError: an op that a format does not have.
        ArtifactError: a file that its runtime refuses.
    """
    files = stage.track(job.files)
    return {t.name: _artifact(job, t, graphs[t.rewrites], calibrated.plans.get(t.name)) for t in files}


def _artifact(job: Job, target: Target, lowered: Lowered, chosen: quantize.Chosen | None) -> Artifact:
    spec_in = image_input(job.model.input_shape, *entrance(job.recipe, target))
    model = _print(job, target, lowered, chosen, spec_in)
    found = inspect_bytes(model, target.format, target.name)
    return Artifact(
        target=target,
        model=model,
        candidate=Candidate(
            _open(target, model), spec_in, float_output(job.model.outputs), target.name, job.model.preprocess
        ),
        inspection=found,
        changes=(*lowered.rewrites, *(chosen.changes if chosen else ()), *_halved(target, found), *_entered(spec_in)),
        declined=chosen.declined if chosen else (),
    )


def entrance(recipe: ExportRecipe, target: Target) -> tuple[Layout, DType]:
    """Layout and dtype of the image that the file of a target takes."""
    layouts: dict[str, Layout] = {"nhwc": "NHWC", "nchw": "NCHW"}
    return layouts[recipe.layout] if recipe.layout else target.layout, recipe.input


def _print(job: Job, target: Target, lowered: Lowered, chosen: quantize.Chosen | None, spec: Input) -> bytes:
    graph = lowered.graph
    if chosen is not None:
        unsigned = target.activation_codes == "uint8"
        graph = quantize.apply(graph, chosen.plan, unsigned=unsigned, pack_weights=target.format == "onnx")
    pixels = None if spec.dtype == "float32" else spec.dtype
    normalization = (job.model.preprocess.mean, job.model.preprocess.std) if pixels else None
    graph = with_entrance(graph, layout=spec.layout, normalization=normalization)
    half = target.precision == "fp16"
    if target.format == "onnx":
        return to_onnx(graph, pixels=pixels, half=half)
    form = Form(pixels=pixels, half=half, run_time=target.ranges == "run-time")
    return to_tflite(graph, quantized=chosen is not None, form=form)


def _entered(spec: Input) -> tuple[str, ...]:
    return () if spec.values == "normalized" else (f"takes {spec.dtype} pixels; the model normalizes them",)


def _halved(target: Target, found: Inspection) -> tuple[str, ...]:
    """What the runtime computes in is what its own graph says, for most of the multiply-accumulates."""
    if target.precision != "fp16":
        return ()
    macs: dict[str, int] = {}
    for record in found.records:
        macs[record.compute] = macs.get(record.compute, 0) + record.macs
    return (f"weights in 16-bit float; {target.engine} on this host computes in {max(macs, key=lambda c: macs[c])}",)


def _open(target: Target, model: bytes) -> Engine:
    try:
        return open_engine(model, target.format, engine=target.engine)
    except EngineError as error:
        fix = "keep this model in float on this target, and report it: a conversion is wrong"
        raise ArtifactError(f"{target.name}: {error.what}", error.why, fix) from error
