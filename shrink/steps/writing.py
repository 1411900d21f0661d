"""Fourth step: the file of every target, loaded in its runtime and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from device_runner.engines import open_engine
from device_runner.engines.base import Engine
from device_runner.errors import EngineError
from shrink import quantize
from shrink.errors import ArtifactError
from shrink.inspect.truth import Inspection, inspect_bytes
from shrink.progress import Stage
from shrink.steps.calibrating import Calibrated
from shrink.steps.capturing import Lowered
from shrink.steps.loading import Job, Rules
from shrink.steps.printing import check_integers, entered, halved, ports, print_file
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
    return {t.name: written(job, t, graphs[job.rules(t)], calibrated.plans.get(t.name)) for t in files}


def written(job: Job, target: Target, lowered: Lowered, chosen: quantize.Chosen | None) -> Artifact:
    """The file of one target, loaded in its runtime; `chosen` says how it is quantized, None that it stays float."""
    model = print_file(job, target, lowered, chosen)
    found = inspect_bytes(model, target.format, target.name)
    check_integers(target, found)
    spec_in, spec_out = ports(job, target, lowered, found)
    return Artifact(
        target=target,
        model=model,
        candidate=Candidate(_open(target, model), spec_in, spec_out, target.name, job.model.preprocess),
        inspection=found,
        changes=(*lowered.rewrites, *(chosen.changes if chosen else ()), *halved(target, found), *entered(spec_in)),
        chosen=chosen,
    )


def _open(target: Target, model: bytes) -> Engine:
    try:
        return open_engine(model, target.format, engine=target.engine)
    except EngineError as error:
        fix = "keep this model in float on this target, and report it: a conversion is wrong"
        raise ArtifactError(f"{target.name}: {error.what}", error.why, fix) from error
