"""Between pruning and rewriting, if asked: the graph is trained. Also what `shrink tune` writes and says."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import fx

from shrink import tune
from shrink.data.images import Images
from shrink.data.stream import SkipLog, stream
from shrink.errors import RecipeError
from shrink.graph import store
from shrink.graph.batch import batched
from shrink.graph.tokens import shared_tokens
from shrink.graph.training import Network
from shrink.models.pruned_source import DIGEST
from shrink.progress import Stage
from shrink.recipe import ExportRecipe, Tune
from shrink.steps.keeping import keep_model
from shrink.steps.loading import NEW_HEAD, Job
from shrink.steps.teaching import Lesson, fresh_head, settings
from shrink.steps.threads import threads_per_op, workers
from shrink.tune.checkpoints import Checkpoints
from shrink.tune.teacher import Teacher
from shrink.verify.statistics import paired_interval, proportion_interval

BATCH = 32


@dataclass(frozen=True, slots=True)
class Tuned:
    """A trained graph, and how it came about."""

    graph: fx.GraphModule
    fitted: tune.Fitted
    changes: tuple[str, ...]  # what was done, in words
    trained_on: Images
    notes: tuple[str, ...] = ()  # what a reader of the results must know


@dataclass(frozen=True, slots=True)
class Judgement:
    """Right answers to the evaluation images, none of which was trained on.

    Attributes:
        whole: of the model before pruning; None: its head was for other classes.
        start, end: before and after training.
        lost, won: images that only the whole model, or only the trained one, names rightly; None as for `whole`.
    """

    images: int
    whole: int | None
    start: int
    end: int
    lost: int | None
    won: int | None


def tune_graph(job: Job, lesson: Lesson | None, small: fx.GraphModule, stage: Stage) -> Tuned | None:
    """A copy of the graph, trained as the recipe asks; None if it does not ask."""
    asked = job.recipe.tune
    return None if lesson is None or asked is None or asked.epochs == 0 else train(job, lesson, small, stage)


def tune_resumably(
    job: Job, lesson: Lesson, small: fx.GraphModule, stage: Stage, *, out: Path, resume: bool
) -> Tuned | None:
    """The same with checkpoints beside `out`; None in all processes but the first.

    Raises:
        OutputError: an earlier training was stopped there, and is not to be gone on with.
    """
    notes: list[str] = []
    checkpoints = Checkpoints(checkpoint_folder(out), notes.append)
    if not resume:
        checkpoints.check_new()
    if job.model.weights == NEW_HEAD:
        small = fresh_head(lesson, small, stage)
    tuned = train(job, lesson, small, stage, checkpoints=checkpoints, resume=resume)
    lesson.where.wait_for_everyone()
    return replace(tuned, notes=tuple(notes)) if lesson.where.is_main_process else None


def checkpoint_folder(out: Path) -> Path:
    """Where the checkpoints of a training lie until it is done."""
    return out.resolve().with_name(f"{out.resolve().name}.checkpoints")


def check_asked(recipe: ExportRecipe, head: int | None) -> None:
    """Refuse a training that would learn nothing.

    Raises:
        RecipeError: no epochs; no teacher but the model itself; or a new head of what is pruned.
    """
    asked = recipe.tune
    if asked is None or asked.epochs == 0:
        raise RecipeError("there is nothing to train", "no number of epochs is given", "add --epochs 3")
    if head is not None and recipe.pruning is not None:
        why = "pruning keeps the answers of a model, and a new head has none yet"
        raise RecipeError(
            "a new head and pruning are both asked for", why, "give the model a head first, then prune it"
        )
    if head is None and recipe.pruning is None and asked.teacher is None and asked.labels == 0:
        why = "without pruning the model already answers as it does, and nobody else teaches it"
        fix = (
            "name the model it was made of with --teacher and --teacher-checkpoint, or learn from labels: --labels 0.3"
        )
        raise RecipeError("there is nothing to learn", why, fix)


def train(
    job: Job,
    lesson: Lesson,
    small: fx.GraphModule,
    stage: Stage,
    *,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
) -> Tuned:
    """Train a copy of `small`.

    Raises:
        DivergenceError: nothing better than the start was found before the loss grew without end.
    """
    asked, where = job.recipe.tune, lesson.where
    assert asked is not None
    student = Network(small).on(where.device)
    learning, teacher = (student, lesson.teacher) if asked.match == 0 else matched(student, lesson.teacher)
    how = settings(asked, job.recipe.seed, taught=teacher is not None)
    training = tune.Training(
        learning, teacher, lesson.data, lesson.held_out, how, where, checkpoints, identity(job, asked, small, lesson)
    )
    with threads_per_op(max(1, workers() // where.num_processes)):
        fitted = training.run(resume=resume, track=stage.track)
    return Tuned(student.to("cpu").finished(), fitted, tuple(_changes(asked, lesson, fitted)), lesson.images)


def matched(student: Network, teacher: Teacher | None) -> tuple[Network, Teacher]:
    """Both, over the same weights, so that they also give the tokens that both compute.

    Raises:
        RecipeError: there are none.
    """
    known = teacher.network if teacher is not None and isinstance(teacher.network, Network) else None
    names = () if known is None else shared_tokens(known.graph_module, student.graph_module)
    if known is None or not names:
        why = "no layer norm of the model reads tokens" if known is not None else "another model teaches, or none"
        raise RecipeError("there are no tokens to match", why, "leave tune.match out")
    return student.telling(names), Teacher(known.telling(names))


def identity(job: Job, asked: Tune, small: fx.GraphModule, lesson: Lesson) -> str:
    """A hash of what a training depends on."""
    graph, tensors = store.dump(small)
    parts = (graph, safetensors.torch.save(tensors), msgspec.json.encode(asked), str(job.recipe.seed).encode())
    whole = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts))
    whole.update("\n".join(lesson.images.refs).encode())
    return whole.hexdigest()


def _changes(asked: Tune, lesson: Lesson, fitted: tune.Fitted) -> Iterator[str]:
    teacher = "labels alone" if lesson.teacher is None else asked.teacher or "the whole model"
    extra = f", {asked.labels:.0%} of the loss from labels" if lesson.teacher is not None and asked.labels else ""
    yield (
        f"trained {len(fitted.judged) - 1} epochs of {len(lesson.data.pixels):,} images to answer as {teacher}{extra}: "
        f"loss {fitted.judged[0]:.3g} -> {fitted.judged[fitted.best]:.3g} on {len(lesson.held_out.pixels):,} others"
    )
    if fitted.best == 0:
        yield "no epoch was better than the start: the weights are as they were"
    if fitted.stopped is not None:
        yield f"training stopped early: {fitted.stopped.why}; the weights are those after epoch {fitted.best}"


def judge(
    job: Job, whole: fx.GraphModule, start: fx.GraphModule, tuned: Tuned, skipped: SkipLog, stage: Stage
) -> Judgement:
    """The models before and after on all evaluation images."""
    images = job.split.evaluation
    graphs = {"start": batched(start), "end": batched(tuned.graph)}
    if job.model.weights != NEW_HEAD:
        graphs["whole"] = batched(whole)
    right: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in graphs}
    batches = stream(images, job.model.preprocess, batch=BATCH, skipped=skipped)
    for batch in stage.track(batches, total=-(-len(images) // BATCH)):
        for name, run in graphs.items():
            with torch.no_grad():
                right[name].append(run(torch.from_numpy(batch.x)).argmax(1).numpy() == batch.labels)
    found = {name: np.concatenate(parts) for name, parts in right.items()}
    end, before = found["end"], found.get("whole")
    return Judgement(
        images=len(end),
        whole=None if before is None else int(before.sum()),
        start=int(found["start"].sum()),
        end=int(end.sum()),
        lost=None if before is None else int((before & ~end).sum()),
        won=None if before is None else int((~before & end).sum()),
    )


def words(tuned: Tuned, judged: Judgement) -> Iterator[str]:
    """What was done and what it brought, line by line, with 95 % intervals."""
    yield from (*tuned.notes, *tuned.changes)
    n = judged.images
    low, high = proportion_interval(judged.end, n)
    start = f"{judged.start / n:.2%}" if judged.whole is not None else "new head"
    yield (f"top-1 {start} -> {judged.end / n:.2%} (95 %: {low:.2%} to {high:.2%}) on {n:,} images not trained on")
    if judged.whole is not None and judged.lost is not None and judged.won is not None:
        least, most = paired_interval(judged.lost, judged.won, n)
        drop = (judged.lost - judged.won) / n
        yield (
            f"the whole model: {judged.whole / n:.2%}; the drop from it is {100 * drop:.2f} points "
            f"({100 * least:.2f} to {100 * most:.2f})"
        )


def save(out: Path, job: Job, tuned: Tuned, judged: Judgement, *, force: bool) -> None:
    """Write the trained model; it appears whole or not at all. Then its checkpoints go."""
    known = {
        "plan": {},
        "changes": tuned.changes,
        "judged": {name: float(value) for name, value in asdict(judged).items() if value is not None},
        "trained_on": b"".join(sorted(digests(tuned.trained_on) | job.model.trained_on)),
    }
    keep_model(out, job, tuned.graph, known, force=force)
    shutil.rmtree(checkpoint_folder(out), ignore_errors=True)


def digests(images: Images) -> frozenset[bytes]:
    """The beginning of the hash of each image's content; of those that can be read."""
    found = set()
    for index in range(len(images)):
        try:
            found.add(images.digest(index)[:DIGEST])
        except OSError:
            continue  # it was not trained on either
    return frozenset(found)
