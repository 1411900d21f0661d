"""Fourth step: the file of every target, loaded in its runtime and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from device_runner.engines import open_engine
from device_runner.engines.base import Engine
from device_runner.errors import EngineError
from shrink import quantize
from shrink.errors import ArtifactError
from shrink.export.bundle import float_input, float_output
from shrink.export.onnx import to_onnx
from shrink.export.tflite import to_tflite
from shrink.inspect.truth import Inspection, inspect_bytes
from shrink.progress import Stage
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
    chosen: quantize.Chosen | None  # how it was quantized, if it was


def write(job: Job, graphs: Mapping[Rules, Lowered], calibrated: Calibrated, stage: Stage) -> dict[str, Artifact]:
    """Every file of the job, float twins among them, by target.

    Raises:
        LoweringError: an op that a format does not have.
        ArtifactError: a file that its runtime refuses.
    """
    files = stage.track(job.files)
    return {t.name: _artifact(job, t, graphs[t.rewrites], calibrated.plans.get(t.name)) for t in files}


def _artifact(job: Job, target: Target, lowered: Lowered, chosen: quantize.Chosen | None) -> Artifact:
    model = _print(target, lowered, chosen)
    spec_in, spec_out = float_input(target, job.model.input_shape), float_output(job.model.outputs)
    return Artifact(
        target=target,
        model=model,
        candidate=Candidate(_open(target, model), spec_in, spec_out, target.name),
        inspection=inspect_bytes(model, target.format, target.name),
        changes=(*lowered.rewrites, *(chosen.changes if chosen else ())),
        chosen=chosen,
    )


def _print(target: Target, lowered: Lowered, chosen: quantize.Chosen | None) -> bytes:
    graph = lowered.graph
    if chosen is not None:
        unsigned = target.activation_codes == "uint8"
        graph = quantize.apply(chosen.graph, chosen.plan, unsigned=unsigned, pack_weights=target.format == "onnx")
    return to_onnx(graph) if target.format == "onnx" else to_tflite(graph, quantized=chosen is not None)


def _open(target: Target, model: bytes) -> Engine:
    try:
        return open_engine(model, target.format, engine=target.engine)
    except EngineError as error:
        fix = "keep this model in float on this target, and report it: a conversion is wrong"
        raise ArtifactError(f"{target.name}: {error.what}", error.why, fix) from error
