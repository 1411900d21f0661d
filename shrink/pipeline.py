"""One export, top to bottom: load, capture, prune, calibrate, write, verify, time, report; and one pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shrink import targets
from shrink.data.stream import SkipLog
from shrink.errors import RecipeError
from shrink.files import check_free
from shrink.progress import Progress
from shrink.prune.plan import Plan
from shrink.recipe import ExportRecipe
from shrink.report.schema import Report
from shrink.steps import keeping, pruning, tuning
from shrink.steps.bundling import bundles, is_ours, records, save
from shrink.steps.calibrating import calibrate
from shrink.steps.capturing import capture_model, lower_all
from shrink.steps.clock import Clock
from shrink.steps.loading import load
from shrink.steps.printing import check_input
from shrink.steps.remaking import Remade, remake
from shrink.steps.reporting import Outcome, build_report
from shrink.steps.rounding import train_rounded
from shrink.steps.teaching import prepare
from shrink.steps.threads import one_thread_per_op
from shrink.steps.timing import measure
from shrink.steps.verifying import verify
from shrink.steps.writing import write

STAGES = 7


def export(
    recipe: ExportRecipe,
    out: Path,
    *,
    force: bool = False,
    keep_failed: bool = False,
    command: Sequence[str] = (),
    made: Remade | None = None,
    progress: Progress,
) -> Report:
    """Make one verified bundle per target in `out`, with the report and every answer beside them.

    Args:
        recipe: what is asked for.
        out: directory to make; it appears whole or not at all.
        force: replace `out`, if it is what an earlier export wrote.
        keep_failed: write the bundle of a target whose verdict is "fail", too.
        command: argv, for the report.
        made: the graph as this recipe prunes and trains it, where that was done already.
        progress: where to show what is going on.

    Raises:
        Problem: one of the classes in `shrink.errors`; nothing was written.
    """
    check_free(out, replace=force, is_ours=is_ours)
    wanted = tuple(map(targets.load, recipe.targets))
    for target in wanted:
        check_input(recipe, target)
    clock, skipped = Clock(progress), SkipLog()
    with one_thread_per_op():
        with clock.stage("load model and data"):
            job = load(recipe, wanted)
        with clock.stage("capture graph" if made else " and ".join(_making(recipe)) + " graph") as stage:
            captured = capture_model(job)
            lesson = prepare(job, captured, skipped, stage) if made is None or _qat(recipe) else None
            remade = made or remake(job, lesson, captured, skipped, stage)
            graphs = lower_all(job, captured if remade is None else remade.graph)
        with clock.stage("calibrate and quantize") as stage:
            calibrated = train_rounded(job, lesson, calibrate(job, graphs, skipped, stage), stage)
        with clock.stage("write files") as stage:
            artifacts = write(job, graphs, calibrated, stage)
        with clock.stage("verify on the real runtimes") as stage:
            verified = verify(job, artifacts, skipped, stage, remade=remade)
        with clock.stage("time against float") as stage:
            timed = measure(job, artifacts, stage)
        outcome = Outcome(job, artifacts, verified, timed, calibrated.images, skipped, keep_failed, remade)
        report = build_report(outcome, command=command, seconds=clock.seconds)
        with clock.stage("save"):
            save(out, list(bundles(outcome)), report, records(outcome), force=force)
    return report


def _making(recipe: ExportRecipe) -> list[str]:
    """What is done to the graph before it is quantized."""
    trained = recipe.tune is not None and recipe.tune.epochs > 0
    return ["capture", *["prune"] * (recipe.pruning is not None), *["train"] * trained]


def _qat(recipe: ExportRecipe) -> bool:
    """Whether the rounded graph is trained, too."""
    return recipe.tune is not None and recipe.tune.qat > 0


PRUNE_STAGES = 3


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What `shrink prune` found out."""

    plan: Plan
    judged: pruning.Judged | None  # None: only the plan was asked for
    changes: tuple[str, ...]  # what was done, in words


def prune(recipe: ExportRecipe, out: Path, *, dry_run: bool, force: bool = False, progress: Progress) -> PruneResult:
    """Make a smaller model and write it to `out`, to be exported or pruned again as `pruned:OUT`.

    Args:
        recipe: with `prune`, `prune_params`, or `prune_to_latency` on the runtime of its first target.
        out: directory to make; it appears whole or not at all.
        dry_run: only plan; nothing is fitted and nothing written.
        force: replace `out`, if it is an earlier pruned model.

    Raises:
        Problem: one of the classes in `shrink.errors`; nothing was written.
    """
    if recipe.pruning is None:
        why = "neither --prune nor --prune-params nor --prune-to-latency is given"
        raise RecipeError("nothing is to be pruned", why, "add --prune 1.5x")
    if not dry_run:
        check_free(out, replace=force, is_ours=keeping.is_ours)
    clock, skipped = Clock(progress), SkipLog()
    with one_thread_per_op():
        with clock.stage("load model and data"):
            job = load(recipe, ())
        with clock.stage("capture and prune graph") as stage:
            captured = capture_model(job)
            pruned = pruning.prune_graph(job, captured, skipped, stage, plan_only=dry_run)
        assert pruned is not None
        if dry_run:
            return PruneResult(pruned.plan, None, pruned.changes)
        with clock.stage("compare with the whole model") as stage:
            judged = pruning.judge(job, pruned.graph, skipped, stage)
            pruning.save(out, job, pruned, judged, force=force)
    return PruneResult(pruned.plan, judged, pruned.changes)


TUNE_STAGES = 4


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What `shrink tune` found out."""

    tuned: tuning.Tuned
    judged: tuning.Judgement


def tune(
    recipe: ExportRecipe, out: Path, *, head: int | None = None, resume: bool = False, force: bool = False,
    progress: Progress,
) -> TuneResult | None:  # fmt: skip
    """Prune a model if asked, train it, and write it to `out`, to be exported as `tuned:OUT`.

    Args:
        recipe: with `tune`; its targets are not looked at.
        out: directory to make; it appears whole or not at all. While training runs, its checkpoints lie beside it.
        head: train a new classifier for so many classes; 0: as many as the data has.
        resume: go on with a training that was stopped.
        force: replace `out`, if it is an earlier model.

    Returns:
        None in all processes of `accelerate launch` but the first.

    Raises:
        Problem: one of the classes in `shrink.errors`; nothing was written but checkpoints.
    """
    tuning.check_asked(recipe, head)
    check_free(out, replace=force, is_ours=keeping.is_ours)
    clock, skipped = Clock(progress), SkipLog()
    with clock.stage("load model and data"):
        job = load(recipe, (), head=head)
    with one_thread_per_op(), clock.stage(" and ".join(_making(recipe)[:-1]) + " graph") as stage:
        captured = capture_model(job)
        pruned = pruning.prune_graph(job, captured, skipped, stage)
    with clock.stage("train") as stage:
        small = captured if pruned is None else pruned.graph
        lesson = prepare(job, captured, skipped, stage)
        assert lesson is not None, "there is something to train"
        tuned = tuning.tune_resumably(job, lesson, small, stage, out=out, resume=resume)
    if tuned is None:
        return None
    with one_thread_per_op(), clock.stage("compare") as stage:
        judged = tuning.judge(job, captured, small, tuned, skipped, stage)
        tuning.save(out, job, tuned, judged, force=force)
    return TuneResult(tuned, judged)
