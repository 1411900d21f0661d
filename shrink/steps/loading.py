"""First step: the model, its targets and its data, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from device_runner.manifest import Preprocess
from shrink import models, targets
from shrink.data import split as splits
from shrink.data.checks import check_labels
from shrink.data.images import Images
from shrink.data.split import Split
from shrink.data.stream import stream
from shrink.graph.capture import capture
from shrink.graph.head import head_width, with_head
from shrink.models import Model
from shrink.recipe import ExportRecipe
from shrink.steps.sanity import FloatModel, check_float
from shrink.targets import Target
from shrink.verify.answers import Reference

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
    whole: Preprocess | None = None  # what the reference is given, where that is not what the files are

    def asked(self, images: Images, *, batch: int) -> Reference:
        """The float model as a function of the batches of `images`, which are prepared for the files: where it is
        judged by images of another size, it is given those, and the batches must come in order."""
        if self.whole is None:
            return self.reference
        others = stream(images, self.whole, batch=batch)
        return lambda _: self.reference(next(others).x)

    def rules(self, target: Target) -> Rules:
        """The rewrites of a target's graph: it reads grey levels only where the file takes them."""
        return target.lower if (self.recipe.input or target.io) == "float32" else target.rewrites

    @property
    def files(self) -> tuple[Target, ...]:
        """All files to write: the targets and the float twin each is compared with; every one once, floats first."""
        twins = [targets.load(target.float_twin) for target in self.targets]
        return tuple({target.name: target for target in (*twins, *self.targets)}.values())


NEW_HEAD = "new head"
"""`Model.weights` of a model whose classifier is not trained yet."""


def load(recipe: ExportRecipe, wanted: tuple[Target, ...], *, head: int | None = None) -> Job:
    """Build the model, open the data, and check that they fit.

    Args:
        head: give the model an untrained classifier for so many classes; 0: as many as the data has.

    Raises:
        RequestError: a model, checkpoint or data that cannot be used, or a model that does not answer.
    """
    checkpoint = None if recipe.checkpoint is None else Path(recipe.checkpoint)
    model = models.load(recipe.model, checkpoint=checkpoint, preprocess=recipe.preprocess)
    calibrates = recipe.pruning is not None or any(target.calibrated for target in wanted)
    split = splits.load(
        recipe.data, calibrate=recipe.calibrate if calibrates else None, seed=recipe.seed, train=recipe.tune is not None
    )
    split = splits.without(split, model.trained_on)
    if head is not None:
        model = _with_new_head(model, head or _classes(split.evaluation))
    check_labels(model.outputs, split.evaluation)
    reference, notes = check_float(model, split.evaluation)
    if recipe.resolution is None:
        return Job(recipe, wanted, model, reference, split, notes)
    small = models.resized(model, recipe.resolution)
    note = f"the files take images of {_size(small)}, and are judged against the model at its own {_size(model)}"
    return Job(recipe, wanted, small, reference, split, (*notes, note), model.preprocess)


def _size(model: Model) -> str:
    return "{} x {}".format(*model.input_shape[2:])


def _with_new_head(model: Model, classes: int) -> Model:
    """The captured model with other classes, small random weights in front of them."""
    graph = capture(model.module, model.input_shape)
    rng = torch.Generator().manual_seed(0)
    width = head_width(graph)
    module = with_head(graph, torch.randn(classes, width, generator=rng) / width**0.5, torch.zeros(classes))
    return replace(model, module=module, outputs=classes, labels=None, weights=NEW_HEAD)


def _classes(images: Images) -> int:
    """How many classes the data has."""
    if images.classes is not None:
        return len(images.classes)
    assert images.labels is not None
    return int(images.labels.max()) + 1
