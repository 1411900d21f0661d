"""What a study is of, its trials as ours, and how Optuna holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from shrink.errors import DataError
from shrink.search.goal import Figures, Goal
from shrink.search.points import STEP, Point, Space
from shrink.search.result import Result


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a study is of: trials of another one say nothing here."""

    model: str  # hash of its weights and of how images are prepared
    data: str  # hash of the images that judge, and of those that calibrate
    recipe: str  # hash of all else that is not searched
    goal: Goal
    space: Space


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One trial."""

    number: int
    point: Point
    state: str  # running, done, given up, failed
    result: Result | None  # of one that is done
    why: str  # it was given up or failed
    seconds: float | None


STATES = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "given up",
    TrialState.FAIL: "failed",
}


SKETCH = "size and time of "  # begins the names of what is known of points beside their trials

WHOLE = len(Point.__struct_fields__)
"""Parameters of a trial; it has fewer while its worker is within the proposal."""


def unnamed(study: optuna.Study, before: int) -> bool:
    """Whether a worker is still within the proposal of a trial before that one."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(trial.number < before and len(trial.params) < WHOLE for trial in trials)


def entries_of(study: optuna.Study) -> list[Entry]:
    """All trials that began, but for proposals of points that were known.

    Raises:
        DataError: a trial is not as a search writes it.
    """
    trials = (trial for trial in study.get_trials(deepcopy=False) if len(trial.params) == WHOLE)
    try:
        return [_entry(trial) for trial in trials if not trial.user_attrs.get("repeats")]
    except (msgspec.ValidationError, LookupError, TypeError, ValueError) as error:
        why = f"a trial in it is not understood: {error}"
        raise DataError("the study is damaged", why, "give one that `shrink search` made, unchanged") from error


def sketches_of(study: optuna.Study) -> dict[Point, Figures]:
    """Size and time of points that were made without training.

    Raises:
        DataError: one is not as a search writes it.
    """
    try:
        kept = [value for key, value in study.user_attrs.items() if key.startswith(SKETCH)]
        return {msgspec.convert(one["point"], Point): msgspec.convert(one["figures"], Figures) for one in kept}
    except (msgspec.ValidationError, LookupError, TypeError) as error:
        why = f"what is known of a size or time is not understood: {error}"
        raise DataError("the study is damaged", why, "give one that `shrink search` made, unchanged") from error


def sketch(point: Point, figures: Figures) -> tuple[str, Any]:
    """The attribute of a study that holds them."""
    held = {"point": msgspec.to_builtins(point), "figures": msgspec.to_builtins(figures)}
    return f"{SKETCH}{point}", held


def _entry(trial: FrozenTrial) -> Entry:
    attributes = trial.user_attrs
    result = attributes.get("result") if trial.state == TrialState.COMPLETE else None
    return Entry(
        number=trial.number,
        point=point_of(trial.params),
        state=STATES[trial.state],
        result=None if result is None else msgspec.convert(result, type=Result),
        why=str(attributes.get("why", "")),
        seconds=attributes.get("seconds"),
    )


def point_of(params: Mapping[str, Any]) -> Point:
    """What the sampler has drawn, as a point; a whole model is not trained."""
    prune = round(params["prune"], 2)
    return Point(**{**params, "prune": prune, "epochs": 0 if prune == 1 else params["epochs"]})


def params_of(point: Point, space: Space) -> dict[str, Any]:
    """The other way round: what the sampler may draw that gives the point."""
    return {**msgspec.to_builtins(point), **({"epochs": space.epochs[0]} if point.prune == 1 else {})}


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """What the sampler draws from."""
    return {
        "prune": FloatDistribution(1.0, space.most_pruned, step=STEP),
        "resolution": CategoricalDistribution(space.resolutions),
        "targets": CategoricalDistribution(space.targets),
        "epochs": CategoricalDistribution(space.epochs),
    }
