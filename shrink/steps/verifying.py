"""Fifth step: every artefact against the float model, on the real runtimes, on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import bdtrc

from device_runner.manifest import Accuracy
from shrink.data.stream import SkipLog, stream
from shrink.errors import ArtifactError
from shrink.progress import Stage
from shrink.steps.loading import Job
from shrink.steps.remaking import Remade
from shrink.steps.sanity import FloatModel
from shrink.steps.writing import Artifact
from shrink.verify.answers import Answers, collect, most_of_rounding, relative_error
from shrink.verify.judge import check_answers, judge

BATCH = 32
CHANCE = 0.01  # probability of so many right answers below which they are no chance
BLAMED = 3  # layers named when too much is lost
PARITY_IMAGES = 16
LARGEST_PARITY = 1e-3  # relative error of a float file above which the conversion itself is wrong


@dataclass(frozen=True, slots=True)
class Verified:
    """What the artefacts answer."""

    answers: Answers  # of the targets that were asked for
    accuracy: Mapping[str, Accuracy]  # the same targets
    parity: Mapping[str, float]  # float file -> its largest error, relative to the largest score
    notes: tuple[str, ...]


def verify(
    job: Job, artifacts: Mapping[str, Artifact], skipped: SkipLog, stage: Stage, *, remade: Remade | None = None
) -> Verified:
    """Judge every target by its answers to the evaluation images, and every float file by its scores.

    Raises:
        ArtifactError: a file that answers NaN or a constant, or a float file that answers something else.
        DataError: more than 5 % of the images cannot be read.
    """
    images, wanted = job.split.evaluation, {target.name: artifacts[target.name] for target in job.targets}
    batches = stage.track(
        stream(images, job.model.preprocess, batch=BATCH, skipped=skipped), total=-(-len(images) // BATCH)
    )
    candidates = {name: item.candidate for name, item in wanted.items()}
    answers = collect(batches, job.asked(images, batch=BATCH), candidates, _between(remade))
    reference = answers.reference.argmax(1)
    accuracy = {
        name: judge(answers.labels, reference, scores.argmax(1), max_drop=job.recipe.max_drop / 100)
        for name, scores in answers.candidates.items()
    }
    failed = [wanted[name] for name, found in accuracy.items() if found.verdict == "fail"]
    notes = (
        *_labels(job, answers),
        *(note for name in wanted for note in _check(job, name, answers)),
        *(note for item in wanted.values() for note in _unlike_simulation(item)),
        *(_blame(item) for item in failed if item.chosen and item.target.ranges == "mixed"),
    )
    return Verified(answers, accuracy, _parities(job, artifacts, answers, remade), notes)


def _between(remade: Remade | None) -> dict[str, FloatModel]:
    """The float models on the way to the files."""
    stages = () if remade is None else remade.stages
    return {what: FloatModel(graph, takes_batches=False) for what, graph in stages}


def _blame(item: Artifact) -> str:
    """The layers that cost most, of a file that lost too much."""
    assert item.chosen is not None
    error, costs = item.chosen.error, item.chosen.costs()[:BLAMED]
    named = ", ".join(f"{cost.layer} ({cost.error:.1%})" for cost in costs)
    return f"{item.target.name}: its scores err by {error:.1%}; with one layer alone in float the least are {named}"


def _unlike_simulation(item: Artifact) -> tuple[str, ...]:
    """A file that errs much more than quantization alone was written wrongly, or its runtime computes it so."""
    if item.chosen is None:
        return ()
    found = item.chosen.error_of(lambda x: torch.from_numpy(item.candidate.run(x.numpy())))
    if found <= most_of_rounding(item.chosen.error):
        return ()
    return (
        f"{item.target.name}: its scores err by {found:.1%} on its runtime and by {item.chosen.error:.1%} in the "
        "simulation, on the same images: the file is not what was quantized; shrink debug names the layer",
    )


def _check(job: Job, name: str, answers: Answers) -> tuple[str, ...]:
    """Refuse nonsense; of a model with random weights only NaN is, the rest is noted."""
    scores = answers.candidates[name]
    try:
        check_answers(name, scores, answers.reference.argmax(1))
    except ArtifactError as error:
        if job.model.weights != "random" or not np.isfinite(scores).all():
            raise
        return (f"{error.what}: int8 cannot tell the nearly equal scores of random weights apart",)
    return ()


def _labels(job: Job, answers: Answers) -> tuple[str, ...]:
    """A trained model that is right no more often than chance was asked in another order of classes."""
    right, n = int((answers.reference.argmax(1) == answers.labels).sum()), len(answers.labels)
    if job.model.weights == "random" or bdtrc(right - 1, n, 1 / job.model.outputs) < CHANCE:
        return ()
    return (
        f"float names {right} of {n} images rightly, no more than chance: is class number i of the data output i of "
        "the model, and is the preprocessing that of training?",
    )


def _parities(job: Job, artifacts: Mapping[str, Artifact], answers: Answers, remade: Remade | None) -> dict[str, float]:
    """The float files must answer what the float model answers, on a few images that could be read.

    Of a pruned or trained model they must answer what its graph does.
    """
    chosen = np.random.default_rng(job.recipe.seed).permutation(len(answers.indices))[:PARITY_IMAGES]
    rows = np.sort(chosen)
    few = job.split.evaluation.subset(answers.indices[rows])
    x = np.concatenate([batch.x for batch in stream(few, job.model.preprocess, batch=BATCH)])
    floats = {name: item for name, item in artifacts.items() if item.target.precision == "fp32"}
    if remade is not None:
        wanted = FloatModel(remade.graph, takes_batches=False)(x)
    else:
        wanted = answers.reference[rows] if job.whole is None else job.reference(x)
    return {name: _parity(name, item.candidate.run(x), wanted) for name, item in floats.items()}


def _parity(name: str, given: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    error = relative_error(given, wanted)
    if not error <= LARGEST_PARITY:  # NaN is not
        raise ArtifactError(
            f"the float file of {name} does not answer what the model answers",
            f"its scores differ by {error:.2%} of the largest score, more than {LARGEST_PARITY:.1%}",
            "report this model: a conversion is wrong",
        )
    return error
