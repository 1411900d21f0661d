"""What a model of a job is trained with: images held in memory, a teacher, and perhaps a new head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from device_runner.manifest import Preprocess
from shrink import models
from shrink.data.held import Held, hold
from shrink.data.images import Images
from shrink.data.split import draw
from shrink.data.stream import SkipLog
from shrink.errors import DataError, ModelError, RecipeError
from shrink.graph.batch import batched
from shrink.graph.capture import capture
from shrink.graph.head import with_head, without_head
from shrink.graph.training import Network
from shrink.progress import Stage
from shrink.recipe import Tune
from shrink.steps.loading import NEW_HEAD, Job
from shrink.tune.head import fit_head
from shrink.tune.settings import Settings, augmentation
from shrink.tune.teacher import Teacher
from shrink.tune.views import GROUP, Data

CHOOSES = (10, 1024)  # one of so many training images is held out to choose the best epoch, at most so many


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a model of a job is trained with.

    Attributes:
        images: those that training may look at.
        data: most of them.
        held_out: the others.
        teacher: None: only labels count.
        where: processes and devices.
    """

    images: Images
    data: Data
    held_out: Data
    teacher: Teacher | None
    where: Accelerator


def accelerator(asked: Tune) -> Accelerator:
    """Where training runs: what `accelerate launch` says, else the GPU if there is one, else the CPU.

    Raises:
        RecipeError: a batch that cannot be shared out evenly.
    """
    found = Accelerator(mixed_precision=asked.precision)
    parts = asked.accumulate * found.num_processes
    if asked.batch % (GROUP * parts):
        raise RecipeError(
            f"tune.batch is {asked.batch}",
            f"{found.num_processes} processes and {asked.accumulate} parts share it in groups of {GROUP} images",
            f"use a multiple of {GROUP * parts}",
        )
    return found


def settings(asked: Tune, seed: int, *, taught: bool, rounded: bool = False) -> Settings:
    """The recipe's words as the loop's.

    Args:
        asked: the recipe's.
        seed: of the run.
        taught: there is a teacher; without one labels are all that is learned from, as by a new head.
        rounded: of the training with the rounding in it.
    """
    own = {name: getattr(asked, name) for name in Settings.__dataclass_fields__ if hasattr(asked, name)}
    if rounded:
        own |= {"epochs": asked.qat, "rate": asked.qat_rate}
    if asked.augment is None:
        own["augment"] = augmentation(own["epochs"], from_labels=not taught or asked.labels > 0)
    return Settings(**own, seed=seed)


def prepare(job: Job, whole: fx.GraphModule, skipped: SkipLog, stage: Stage) -> Lesson | None:
    """Decode the images, and find the teacher; None if no training is asked for.

    Raises:
        RecipeError: a batch that cannot be shared out evenly.
        DataError: too few images; no labels where labels count; a class without images where classes are balanced.
        ModelError: a teacher that does not fit the model.
    """
    asked, images = job.recipe.tune, job.split.training
    if asked is None or not (asked.epochs or asked.qat):
        return None
    assert images is not None
    where = accelerator(asked)
    check_images(images, asked, job.model.outputs, new_head=job.model.weights == NEW_HEAD)
    held = hold(images, job.model.preprocess, skipped, track=lambda items, total: stage.track(items, total=total))
    rng = np.random.default_rng(job.recipe.seed)
    share, most = CHOOSES
    choosing = draw(held.labels, len(held), min(most, -(-len(held) // share)), rng)
    learning = np.setdiff1d(np.arange(len(held)), choosing)
    data, held_out = (_data(job, held, indices) for indices in (learning, choosing))
    return Lesson(images, data, held_out, _teacher(job, asked, whole, where), where)


def check_images(images: Images, asked: Tune, classes: int, *, new_head: bool) -> None:
    """Refuse images that cannot teach what is asked.

    Raises:
        DataError: names the number or the class.
    """
    if not len(images):
        raise DataError("there are no images to train on", f"{images.name} has none for it", "add some")
    counts = None if images.labels is None else np.bincount(images.labels, minlength=classes)
    if len(images) < max(FEWEST, classes):
        why = f"the model has {classes} classes; at least {max(FEWEST, classes)} are needed"
        raise DataError(f"{len(images)} images are too few to train on", why, "add images to the train part")
    if (asked.labels > 0 or asked.balance or new_head) and counts is None:
        why = f"{'balance' if asked.balance else 'part of the loss'} looks at them"
        raise DataError(f"the training images of {images.name} have no labels", why, "sort them into folders")
    if asked.balance and counts is not None and (counts == 0).any():
        missing = images.label_name(int(np.flatnonzero(counts == 0)[0]))
        fix = "add some, or leave balance out"
        raise DataError(f"no training image is of {missing}", "every class is to be drawn equally often", fix)


FEWEST = 16  # images


def _data(job: Job, held: Held, indices: NDArray[np.int64]) -> Data:
    labels = None if held.labels is None else held.labels[indices]
    preprocess = job.model.preprocess
    return Data(Held(held.pixels[indices], labels), labels, job.model.outputs, preprocess.mean, preprocess.std)


def _teacher(job: Job, asked: Tune, whole: fx.GraphModule, where: Accelerator) -> Teacher | None:
    if asked.labels == 1 or (job.model.weights == NEW_HEAD and asked.teacher is None):
        return None
    network = Network(whole).on(where.device) if asked.teacher is None else _other_teacher(job, asked, where.device)
    return Teacher(network.requires_grad_(False))


def _other_teacher(job: Job, asked: Tune, device: torch.device) -> nn.Module:
    """A model of its own, which is shown the same pixels in its own normalization.

    Raises:
        ModelError: it takes other images or gives other scores.
    """
    assert asked.teacher is not None
    checkpoint = None if asked.teacher_checkpoint is None else Path(asked.teacher_checkpoint)
    known = job.model.preprocess if not asked.teacher.startswith(OF_THEIR_OWN) else None
    teacher = models.load(asked.teacher, checkpoint=checkpoint, preprocess=known)
    wrong = {
        f"it gives {teacher.outputs} scores, the model {job.model.outputs}": teacher.outputs != job.model.outputs,
        f"it takes images of {teacher.input_shape[1:]}, the model of {job.model.input_shape[1:]}": teacher.input_shape
        != job.model.input_shape,
        "its classes have other names or another order": None not in (teacher.labels, job.model.labels)
        and teacher.labels != job.model.labels,
    }
    for why, is_wrong in wrong.items():
        if is_wrong:
            fix = "give a teacher for the same classes and images, or none: the model before pruning teaches"
            raise ModelError(f"{asked.teacher} cannot be the teacher", why, fix)
    network = Network(capture(teacher.module, teacher.input_shape)).on(device)
    return _Renormalized(network, job.model.preprocess, teacher.preprocess).to(device)


class _Renormalized(nn.Module):
    """A network that is given images in the normalization of another."""

    def __init__(self, network: nn.Module, given: Preprocess, wanted: Preprocess) -> None:
        super().__init__()
        self.network = network
        mean, std, new_mean, new_std = (
            torch.tensor(list(values)).reshape(1, -1, 1, 1)
            for values in (given.mean, given.std, wanted.mean, wanted.std)
        )
        self.scale, self.shift = nn.Parameter(std / new_std), nn.Parameter((mean - new_mean) / new_std)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images * self.scale + self.shift)
        return scores


def fresh_head(lesson: Lesson, graph_module: fx.GraphModule, stage: Stage) -> fx.GraphModule:
    """The graph with a head fitted to the labels, the rest as it is: where the training of all of it begins."""
    body = batched(without_head(graph_module))

    def features(data: Data) -> tuple[Tensor, Tensor]:
        indices = np.array_split(np.arange(len(data.pixels)), -(-len(data.pixels) // FEATURES_BATCH))
        with torch.no_grad():
            found = [body(data.normalized(data.pixels.read(some))) for some in stage.track(indices)]
        assert data.labels is not None
        return torch.cat(found), torch.from_numpy(data.labels)

    mine, other = features(lesson.data), features(lesson.held_out)
    return with_head(graph_module, *fit_head(*mine, other, lesson.data.classes))


FEATURES_BATCH = 32
OF_THEIR_OWN = ("torchvision:", "timm:", "pruned:", "tuned:")  # sources that know how their images were prepared
