"""Between capturing and rewriting, if asked: the graph gets smaller. Also what `shrink prune` writes and says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, fx

from shrink import prune
from shrink.data.images import Images
from shrink.data.stream import SkipLog, stream
from shrink.progress import Stage
from shrink.prune.plan import Plan
from shrink.recipe import ExportRecipe
from shrink.steps.hastening import cut_to_latency
from shrink.steps.keeping import keep_model
from shrink.steps.loading import Job
from shrink.steps.sanity import FloatModel
from shrink.steps.threads import threads_per_op, workers

BATCH = 32
MOST_IMAGES = 1024  # that are held in memory


@dataclass(frozen=True, slots=True)
class Judged:
    """How the pruned graph answers the evaluation images, beside the whole model."""

    images: int
    top1_before: float
    top1_after: float
    agreement: float


def prune_graph(
    job: Job, captured: fx.GraphModule, skipped: SkipLog, stage: Stage, *, plan_only: bool = False
) -> prune.Pruned | None:
    """The graph made smaller as the recipe asks; None if it does not ask."""
    if job.recipe.pruning is None:
        return None

    def track(items: Iterable[Any], _: str) -> Iterator[Any]:
        return stage.track(list(items))

    images = calibration_tensor(job, skipped)
    asked = settings(job.recipe)
    with threads_per_op(workers()):  # one graph at a time, on many images
        if job.recipe.pruning[1] != "latency":
            return prune.run(captured, asked, images, apply_only=plan_only, track=track)
        ranked = prune.rank(captured, asked, images, track=track)
        made, measured = cut_to_latency(job, captured, ranked, asked, stage)
        pruned = prune.Pruned(made.graph, made.plan, prune.smaller(made.plan))
        if not plan_only:
            fitted = prune.refit(ranked, made, images)
            pruned = prune.train(ranked, made, fitted, images, seed=asked.seed, track=track)
    return replace(pruned, changes=(*pruned.changes, measured))


def settings(recipe: ExportRecipe) -> prune.Settings:
    """How a recipe that asks for it wants to be pruned; a wish for latency is one for multiply-accumulates at first."""
    assert recipe.pruning is not None
    wish, measure, left = recipe.pruning
    reduced = "macs" if measure == "latency" else measure
    return prune.Settings(wish, reduced, left, score=recipe.prune_score, keep=recipe.keep, seed=recipe.seed)


def calibration_tensor(job: Job, skipped: SkipLog) -> Tensor:
    """Up to `MOST_IMAGES` calibration images in random order, (N, C, H, W); their labels are not looked at."""
    images = job.split.calibration
    chosen = np.random.default_rng(job.recipe.seed).permutation(len(images))[:MOST_IMAGES]
    batches = [batch.x for batch in stream(images.subset(chosen), job.model.preprocess, batch=BATCH, skipped=skipped)]
    return torch.from_numpy(np.concatenate(batches))


def judge(job: Job, pruned: fx.GraphModule, skipped: SkipLog, stage: Stage) -> Judged:
    """Both models on all evaluation images."""
    images: Images = job.split.evaluation
    before, after = job.asked(images, batch=BATCH), FloatModel(pruned, takes_batches=False)
    right = np.zeros(3)
    total = 0
    batches = stream(images, job.model.preprocess, batch=BATCH, skipped=skipped)
    for batch in stage.track(batches, total=-(-len(images) // BATCH)):
        a, b = before(batch.x).argmax(1), after(batch.x).argmax(1)
        right += np.array([(a == batch.labels).sum(), (b == batch.labels).sum(), (a == b).sum()])
        total += len(batch.x)
    return Judged(total, *(right / max(total, 1)).tolist())


def save(out: Path, job: Job, pruned: prune.Pruned, judged: Judged, *, force: bool) -> None:
    """Write the pruned model; it appears whole or not at all."""
    known = {"plan": msgspec.to_builtins(pruned.plan), "changes": pruned.changes, "judged": asdict(judged)}
    keep_model(out, job, pruned.graph, known, force=force)


def table(plan: Plan) -> Iterator[str]:
    """The plan for a terminal, line by line."""
    wide = max((len(layer.layer) for layer in plan.layers), default=5)
    yield f"{'layer':{wide}}  {'weight':>18}  {'pruned':>18}  {'MACs':>13}  {'pruned':>13}"
    for layer in plan.layers:
        before, after = ("x".join(map(str, shape)) for shape in (layer.weight_before, layer.weight_after))
        yield (
            f"{layer.layer:{wide}}  {before:>18}  {'=' if after == before else after or 'gone':>18}  "
            f"{layer.macs_before:>13,}  {layer.macs_after:>13,}"
        )
    yield ""
    if plan.blocks:
        yield f"blocks that go as a whole: {', '.join(dropped.block for dropped in plan.blocks)}"
    for declined, layers in _reasons(plan).items():
        yield f"stays: {', '.join(layers[:3])}{f' and {len(layers) - 3} more' if len(layers) > 3 else ''}: {declined}"
    if plan.macs_unread:
        yield f"of the MACs, {plan.macs_unread:,} go for places that nobody reads: this changes no answer"
    macs, parameters = plan.macs_after / plan.macs_before, plan.parameters_after / plan.parameters_before
    yield f"MACs        {plan.macs_before:>15,} -> {plan.macs_after:>15,}  {macs:6.1%}, {1 / macs:.2f}x fewer"
    yield f"parameters  {plan.parameters_before:>15,} -> {plan.parameters_after:>15,}  {parameters:6.1%}"


def _reasons(plan: Plan) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for declined in plan.skipped:
        found.setdefault(declined.why, []).append(declined.layer)
    return found


def verdict(judged: Judged) -> str:
    """What pruning cost, in one line."""
    return (
        f"top-1 {judged.top1_before:.2%} -> {judged.top1_after:.2%}, same answer on {judged.agreement:.2%} "
        f"of {judged.images:,} images that were not used for pruning"
    )
