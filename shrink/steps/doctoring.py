"""The doctor's visit: calibration images, evaluation images, then a few of them in front of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from shrink import targets
from shrink.data.checks import CalibrationStats, calibration_problems
from shrink.data.images import Images
from shrink.data.split import draw
from shrink.data.stream import MOST_SKIPPED, SkipLog, stream
from shrink.doctor import classes, pictures, probe
from shrink.doctor.copies import Copies
from shrink.doctor.findings import Finding, Level, of_problem, ok, worst
from shrink.progress import Progress, Stage
from shrink.recipe import ExportRecipe
from shrink.steps.loading import Job, load
from shrink.verify.statistics import images_needed

STAGES = 4
BATCH = 32
FEW = 128  # calibration images; ranges of two draws of so many are nearly the same
PROBED = 128  # images shown to the model in every way


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor found."""

    data: str
    model: str
    calibration_images: int
    evaluation_images: int
    level: Level  # the worst of all findings
    findings: tuple[Finding, ...]

    @property
    def title(self) -> str:
        """One line."""
        counts = f"{self.calibration_images} calibration and {self.evaluation_images} evaluation images"
        return f"{self.data} for {self.model}: {counts}"


def examine(recipe: ExportRecipe, progress: Progress) -> Examination:
    """Look at the data of a recipe with the eyes of its model.

    Raises:
        RequestError: a model or data that an export could not read either.
    """
    with progress.stage("load model and data"):
        job = load(recipe, (targets.load("tflite-int8"),))  # any target that is calibrated
    calibration, evaluation = job.split.calibration, job.split.evaluation
    skipped, copies, stats = SkipLog(), Copies(), CalibrationStats()
    with progress.stage("calibration images") as stage:
        first = _Look("calibration", job, calibration, skipped)
        for x, refs in first.batches(stage):
            stats.add(x)
            copies.calibrate(x, refs)
    with progress.stage("evaluation images") as stage:
        second = _Look("evaluation", job, evaluation, skipped)
        for x, refs in second.batches(stage):
            copies.evaluate(x, refs)
    with progress.stage("other ways to prepare images") as stage:
        probed = list(_probe(job, stage))
    found = (
        *_counts(job, first, second, skipped),
        *(of_problem("export", problem) for problem in calibration_problems(stats, job.model.preprocess)),
        *pictures.of_sets((first.seen, second.seen)),
        *(look.sized.finding(look.seen.name) for look in (first, second)),
        *pictures.compare(first.seen, second.seen),
        *copies.findings(),
        *classes.coverage(evaluation, job.model.outputs),
        *probed,
    )
    return Examination(recipe.data, recipe.model, first.seen.count, second.seen.count, worst(found), found)


class _Look:
    """One pass over one set."""

    def __init__(self, name: str, job: Job, images: Images, skipped: SkipLog) -> None:
        preprocess = job.model.preprocess
        self.sized = pictures.Sized(images.source, preprocess.size)
        self.images, self.preprocess, self.skipped = replace(images, source=self.sized), preprocess, skipped
        self.seen = pictures.pictures(name, preprocess)

    def batches(self, stage: Stage) -> Iterator[tuple[NDArray[np.float32], list[str]]]:
        """Every batch and the names of its images, once it was looked at."""
        batches = stream(self.images, self.preprocess, batch=BATCH, skipped=self.skipped)
        for batch in stage.track(batches, total=-(-len(self.images) // BATCH)):
            self.seen.add(batch.x)
            yield batch.x, [self.images.refs[index] for index in batch.indices]


def _counts(job: Job, first: _Look, second: _Look, skipped: SkipLog) -> Iterator[Finding]:
    words = f"{len(skipped)} of {len(first.images) + len(second.images)} images cannot be read"
    if len(skipped):
        ref, reason = next(iter(skipped.entries.items()))
        fix = "repair them or take them out"
        yield Finding("readable", "warning", words, f"over {MOST_SKIPPED:.0%} are refused; {ref}: {reason}", fix)
    else:
        yield ok("readable", words)
    count = first.seen.count
    if count < FEW:
        why = f"ranges depend on which images were drawn; {FEW} to 512 are enough"
        yield Finding("calibration", "warning", f"there are {count} calibration images", why, "give 256")
    else:
        yield ok("calibration", f"there are {count} calibration images")
    yield _enough(second.seen.count, job.recipe.max_drop)


def _enough(count: int, max_drop: float) -> Finding:
    """Whether the evaluation images could show that a model is good, if not one answer changed."""
    words = f"there are {count} evaluation images"
    more = images_needed(0, 0, count, max_drop / 100) if count else 1
    if more is None:
        return ok("evaluation", words)
    why = f"even if no answer changes they cannot show that the drop is at most {max_drop:g} points"
    return Finding("evaluation", "warning", words, why, f"add about {more}, or allow a larger --max-drop")


def _probe(job: Job, stage: Stage) -> Iterator[Finding]:
    """What only the model can tell."""
    if job.model.weights == "random":
        why = "only a trained model tells in which way its images were prepared"
        yield Finding("preprocessing", "warning", "the weights are random", why, "give them with --checkpoint")
        return
    evaluation, preprocess = job.split.evaluation, job.model.preprocess
    few = evaluation.subset(draw(evaluation.labels, len(evaluation), PROBED, np.random.default_rng(job.recipe.seed)))
    images, labels = _pixels(job, few)
    tried = stage.track([probe.AS_IS, *probe.ways(preprocess)])
    mean, std = preprocess.mean, preprocess.std
    found = [(way, probe.answers(job.reference(way.prepare(images, mean, std)), labels)) for way in tried]
    own, others = found[0][1], found[1:]
    order = classes.other_order(labels, own.classes, evaluation, job.model.outputs)
    if order is not None and order.share > max(float(other.right.mean()) for _, other in others) + probe.CLEAR_GAIN:
        yield order.finding(int(own.right.sum()), len(labels))
        return
    judged = probe.judge(own, others)
    yield judged
    if judged.level == "ok":  # else the answers say nothing of the labels
        yield classes.numbering(labels, own.classes, job.model.outputs)
        if not job.recipe.calibrate.strip().isdigit():
            yield from _surer(job)


def _surer(job: Job) -> Iterator[Finding]:
    """Calibration images of their own, which have no labels: is the model surer of them the other way round?"""
    images = job.split.calibration
    few = images.subset(draw(None, len(images), PROBED, np.random.default_rng(job.recipe.seed)))
    plain, _ = _pixels(job, few)
    mean, std = job.model.preprocess.mean, job.model.preprocess.std
    ways = [probe.AS_IS, *(way for way in probe.ways(job.model.preprocess) if way.norm is None)]
    scores = [job.reference(way.prepare(plain, mean, std)) for way in ways]
    yield probe.surer(scores[0], list(zip(ways[1:], scores[1:], strict=True)))


def _pixels(job: Job, few: Images) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (n, C, H, W) in 0..1, and their labels; -1 where there are none."""
    channels = len(job.model.preprocess.mean)
    plain = msgspec.structs.replace(job.model.preprocess, mean=(0.0,) * channels, std=(1.0,) * channels)
    batches = list(stream(few, plain, batch=BATCH, skipped=SkipLog()))
    labels = [np.full(len(batch.x), -1) if batch.labels is None else batch.labels for batch in batches]
    return np.concatenate([batch.x for batch in batches]), np.concatenate(labels)
