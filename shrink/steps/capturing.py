"""Second step: one graph of the model, rewritten for every set of rules that the files ask for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from shrink.graph.capture import capture
from shrink.graph.edit import copy_graph
from shrink.graph.lower import lower
from shrink.steps.loading import Job

Rules = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """The captured model, rewritten for a runtime."""

    graph: fx.GraphModule
    rewrites: tuple[str, ...]  # what was rewritten, in words


def capture_all(job: Job) -> dict[Rules, Lowered]:
    """Capture the model once, which takes seconds, and rewrite a copy for every set of rules.

    Sets that did the same share their graph, so that it is calibrated once: a rule that finds nothing to
    rewrite makes no difference.
    """
    captured = capture(job.model.module, job.model.input_shape)
    found: dict[Rules, Lowered] = {}
    for rules in dict.fromkeys(target.rewrites for target in job.files):
        lowered = _lowered(job, captured, rules)
        found[rules] = next((other for other in found.values() if other.rewrites == lowered.rewrites), lowered)
    return found


def _lowered(job: Job, captured: fx.GraphModule, rules: Rules) -> Lowered:
    graph = copy_graph(captured)
    preprocess = job.model.preprocess
    return Lowered(graph, lower(graph, rules, normalization=(preprocess.mean, preprocess.std)))
