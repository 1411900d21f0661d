"""Second step: one graph of the model, pruned if asked, rewritten for every set of rules that the files ask for."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from shrink.graph.capture import capture
from shrink.graph.edit import copied
from shrink.graph.lower import lower
from shrink.steps.loading import Job, Rules


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """The captured model, rewritten for a runtime."""

    graph: fx.GraphModule
    rewrites: tuple[str, ...]  # what was rewritten, in words


def capture_model(job: Job) -> fx.GraphModule:
    """The one graph of the model."""
    return capture(job.model.module, job.model.input_shape)


def lower_all(job: Job, captured: fx.GraphModule) -> dict[Rules, Lowered]:
    """Rewrite a copy of the graph for every set of rules.

    Sets that did the same share their graph, so that it is calibrated once: a rule that finds nothing to
    rewrite makes no difference.
    """
    found: dict[Rules, Lowered] = {}
    for rules in dict.fromkeys(map(job.rules, job.files)):
        one = lowered(job, captured, rules)
        found[rules] = next((other for other in found.values() if other.rewrites == one.rewrites), one)
    return found


def lowered(job: Job, captured: fx.GraphModule, rules: Rules) -> Lowered:
    """A copy of the graph, rewritten by a set of rules."""
    graph = copied(captured)
    preprocess = job.model.preprocess
    return Lowered(graph, lower(graph, rules, normalization=(preprocess.mean, preprocess.std)))
