"""First step: the model, its targets and its data, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shrink import models, targets
from shrink.data import split as splits
from shrink.data.checks import check_labels
from shrink.data.split import Split
from shrink.models import Model
from shrink.recipe import ExportRecipe
from shrink.steps.sanity import FloatModel, check_float
from shrink.targets import Target

Rules = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """An export with all it needs at hand."""

    recipe: ExportRecipe
    targets: tuple[Target, ...]  # as asked, in that order
    model: Model
    reference: FloatModel
    split: Split
    notes: tuple[str, ...]  # what a reader of the results must know of the model

    def rules(self, target: Target) -> Rules:
        """The rewrites of a target's graph: it reads grey levels only where the file takes them."""
        return target.lower if (self.recipe.input or target.io) == "float32" else target.rewrites

    @property
    def files(self) -> tuple[Target, ...]:
        """All files to write: the targets and the float twin each is compared with; every one once, floats first."""
        twins = [targets.load(target.float_twin) for target in self.targets]
        return tuple({target.name: target for target in (*twins, *self.targets)}.values())


def load(recipe: ExportRecipe, wanted: tuple[Target, ...]) -> Job:
    """Build the model, open the data, and check that they fit.

    Raises:
        RequestError: a model, checkpoint or data that cannot be used, or a model that does not answer.
    """
    checkpoint = None if recipe.checkpoint is None else Path(recipe.checkpoint)
    model = models.load(recipe.model, checkpoint=checkpoint, preprocess=recipe.preprocess)
    calibrates = recipe.pruning is not None or any(target.calibrated for target in wanted)
    split = splits.load(recipe.data, calibrate=recipe.calibrate if calibrates else None, seed=recipe.seed)
    check_labels(model.outputs, split.evaluation)
    reference, notes = check_float(model, split.evaluation)
    return Job(recipe, wanted, model, reference, split, notes)
