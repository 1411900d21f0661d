"""Between capturing and rewriting: the graph is pruned and trained, as far as the recipe asks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from shrink import prune
from shrink.data.stream import SkipLog
from shrink.progress import Stage
from shrink.prune.plan import Plan
from shrink.steps.loading import Job
from shrink.steps.pruning import prune_graph
from shrink.steps.teaching import Lesson
from shrink.steps.tuning import Tuned, tune_graph


@dataclass(frozen=True, slots=True)
class Remade:
    """A graph that answers otherwise than the model it was captured from."""

    graph: fx.GraphModule
    changes: tuple[str, ...]  # what was done, in words
    plan: Plan | None  # what was pruned, if anything was
    stages: tuple[tuple[str, fx.GraphModule], ...]  # what each step left, in words and as a graph


def remake(job: Job, lesson: Lesson | None, captured: fx.GraphModule, skipped: SkipLog, stage: Stage) -> Remade | None:
    """The graph pruned, then trained; None if neither is asked for."""
    pruned = prune_graph(job, captured, skipped, stage)
    small = captured if pruned is None else pruned.graph
    return remade(job, pruned, tune_graph(job, lesson, small, stage))


def remade(job: Job, pruned: prune.Pruned | None, tuned: Tuned | None) -> Remade | None:
    """What both steps left, each None where it was not asked for."""
    if pruned is None and tuned is None:
        return None
    done = (() if pruned is None else pruned.changes) + (() if tuned is None else tuned.changes)
    left = {} if pruned is None else {f"pruned {_asked(job)}": pruned.graph}
    stages = tuple((left if tuned is None else left | {"trained": tuned.graph}).items())
    return Remade(stages[-1][1], done, None if pruned is None else pruned.plan, stages)


def _asked(job: Job) -> str:
    return job.recipe.pruning[0] if job.recipe.pruning else ""
