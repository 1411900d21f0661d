"""The steps of `shrink export` for one file at a time, without labelled data: all that reaches inside shrink."""

from __future__ import annotations

from torch import fx

from benchmarks.zoo_result import Effort
from shrink.data.images import Images
from shrink.data.split import Split
from shrink.data.stream import SkipLog
from shrink.models import Model
from shrink.progress import Quiet
from shrink.recipe import ExportRecipe
from shrink.steps.calibrating import calibrate
from shrink.steps.capturing import lower_all
from shrink.steps.loading import Job
from shrink.steps.sanity import FloatModel
from shrink.steps.writing import Artifact, write
from shrink.targets import Target


class OneFile(Job):
    """A job that leaves the float twin out: it is a job of its own, and fails on its own."""

    @property
    def files(self) -> tuple[Target, ...]:
        """The one target."""
        return self.targets


def make(
    model: Model, captured: fx.GraphModule, target: Target, calibration: Images, effort: Effort = "balanced"
) -> Artifact:
    """Calibrate, quantize and write one file as the export does.

    Args:
        model: what to export.
        captured: its graph; left as it is.
        target: what to make of it.
        calibration: images without labels.
        effort: of quantization.

    Raises:
        Problem: as the export.
    """
    recipe = ExportRecipe(model=model.spec, data=calibration.name, targets=(target.name,), quantize=effort)
    job = OneFile(
        recipe=recipe,
        targets=(target,),
        model=model,
        reference=FloatModel(model.module, takes_batches=False),
        split=Split(calibration, calibration, ()),
        notes=(),
    )
    graphs = lower_all(job, captured)
    with Quiet().stage("make") as stage:
        return write(job, graphs, calibrate(job, graphs, SkipLog(), stage), stage)[target.name]
