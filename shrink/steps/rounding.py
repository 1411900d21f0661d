"""After calibration, if asked: the quantized graphs are trained with their rounding in them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from shrink import quantize, tune
from shrink.errors import DivergenceError
from shrink.progress import Stage
from shrink.recipe import Tune
from shrink.steps.calibrating import Calibrated
from shrink.steps.loading import Job
from shrink.steps.teaching import Lesson, settings
from shrink.steps.threads import threads_per_op, workers


def train_rounded(job: Job, lesson: Lesson | None, calibrated: Calibrated, stage: Stage) -> Calibrated:
    """The plans with weights and scales that were trained; files with the same plan share one training."""
    asked = job.recipe.tune
    if lesson is None or asked is None or asked.qat == 0:
        return calibrated
    found: dict[str, quantize.Chosen] = {}
    for name, chosen in calibrated.plans.items():
        twin = next((other for other in found if _alike(chosen, calibrated.plans[other])), None)
        found[name] = _trained(job, lesson, chosen, stage) if twin is None else _as(found[twin], chosen)
    return replace(calibrated, plans=found)


def _trained(job: Job, lesson: Lesson, chosen: quantize.Chosen, stage: Stage) -> quantize.Chosen:
    asked = job.recipe.tune
    assert asked is not None
    if chosen.tools.target.precision == "int16x8":
        return chosen.declined("training with rounding", "activations of 16 bits are hardly rounded")
    learner = chosen.learner()
    how = settings(asked, job.recipe.seed, taught=lesson.teacher is not None, rounded=True)
    network = learner.network.on(lesson.where.device)
    training = tune.Training(network, lesson.teacher, lesson.data, lesson.held_out, how, lesson.where)
    try:
        with threads_per_op(max(1, workers() // lesson.where.num_processes)):
            fitted = training.run(track=stage.track)
    except DivergenceError as error:
        return chosen.declined("training with rounding", f"it came apart: {error.why}")
    learner.network.to("cpu")
    what = (
        f"trained {len(fitted.judged) - 1} epochs with rounding: loss {fitted.judged[0]:.3g} -> "
        f"{fitted.judged[fitted.best]:.3g} on {len(lesson.held_out.pixels):,} images"
    )
    return chosen.learned(learner.state(), what, better=fitted.best > 0, alone=_alone(asked, lesson, chosen))


def _alone(asked: Tune, lesson: Lesson, chosen: quantize.Chosen) -> str:
    """Why the loss of the training decides alone, and not with the ladder's judge; empty: it does not."""
    mine, ladders = len(lesson.held_out.pixels), len(chosen.tools.held_out)
    reasons = {
        "labels had a say, not only the float model's scores": asked.labels > 0,
        "another model than the float one taught": asked.teacher is not None,
        f"{mine:,} images judged the training, {ladders:,} judge here": mine > ladders,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _as(trained: quantize.Chosen, chosen: quantize.Chosen) -> quantize.Chosen:
    """What was trained for another target with the same plan."""
    return replace(chosen, state=trained.state, rungs=(*chosen.rungs, trained.rungs[-1]))


def _alike(a: quantize.Chosen, b: quantize.Chosen) -> bool:
    """Whether two plans hold the same numbers for the same graph."""
    mine, other = a.plan, b.plan
    return (
        (mine.scheme, mine.codes, mine.rows) == (other.scheme, other.codes, other.rows)
        and a.tools.target.precision == b.tools.target.precision
        and mine.rounded.keys() == other.rounded.keys()
        and all(torch.equal(mine.rounded[name].codes, other.rounded[name].codes) for name in mine.rounded)
        and _same_weights(a.graph, b.graph)
    )


def _same_weights(a: fx.GraphModule, b: fx.GraphModule) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)
