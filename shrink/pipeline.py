"""One export, top to bottom: load, capture, calibrate, write, verify, time, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shrink import targets
from shrink.data.stream import SkipLog
from shrink.files import check_free
from shrink.progress import Progress
from shrink.recipe import ExportRecipe
from shrink.report.schema import Report
from shrink.steps.bundling import bundles, is_ours, save
from shrink.steps.calibrating import calibrate
from shrink.steps.capturing import capture_all
from shrink.steps.clock import Clock
from shrink.steps.loading import load
from shrink.steps.printing import check_input
from shrink.steps.reporting import Outcome, build_report
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
    progress: Progress,
) -> Report:
    """Make one verified bundle per target in `out`, with `report.json` and `report.md` beside them.

    Args:
        recipe: what is asked for.
        out: directory to make; it appears whole or not at all.
        force: replace `out`, if it is what an earlier export wrote.
        keep_failed: write the bundle of a target whose verdict is "fail", too.
        command: argv, for the report.
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
        with clock.stage("capture graph"):
            graphs = capture_all(job)
        with clock.stage("calibrate and quantize") as stage:
            calibrated = calibrate(job, graphs, skipped, stage)
        with clock.stage("write files") as stage:
            artifacts = write(job, graphs, calibrated, stage)
        with clock.stage("verify on the real runtimes") as stage:
            verified = verify(job, artifacts, skipped, stage)
        with clock.stage("time against float") as stage:
            timed = measure(job, artifacts, stage)
        outcome = Outcome(job, artifacts, verified, timed, calibrated.images, skipped, keep_failed)
        report = build_report(outcome, command=command, seconds=clock.seconds)
        with clock.stage("save"):
            save(out, list(bundles(outcome)), report, force=force)
    return report
