"""Second step: one graph for each set of rewrites that the files ask for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from shrink.graph.capture import capture
from shrink.graph.lower import lower
from shrink.steps.loading import Job

Rules = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lowered:
    """The captured model, rewritten for a runtime."""

    graph: fx.GraphModule
    rewrites: tuple[str, ...]  # what was rewritten, in words


def capture_all(job: Job) -> dict[Rules, Lowered]:
    """Capture and rewrite the model once for every set of rules."""
    return {rules: _lowered(job, rules) for rules in dict.fromkeys(target.rewrites for target in job.files)}


def _lowered(job: Job, rules: Rules) -> Lowered:
    graph = capture(job.model.module, job.model.input_shape)
    preprocess = job.model.preprocess
    return Lowered(graph, lower(graph, rules, normalization=(preprocess.mean, preprocess.std)))
