"""`shrink search`, top to bottom: what is asked, the study, the trials, and the winner as an ordinary bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from shrink import pipeline
from shrink.boards.places import Places
from shrink.data.images import Images
from shrink.files import check_free
from shrink.models import Model
from shrink.progress import Progress, Stage
from shrink.recipe import ExportRecipe
from shrink.report.schema import Report
from shrink.search import draw, space
from shrink.search.clocks import clocks
from shrink.search.front import winner
from shrink.search.goal import Goal, Look
from shrink.search.points import Point, Space
from shrink.search.result import Result
from shrink.search.study import Study
from shrink.search.trials import Entry, Head
from shrink.search.work import Budget, finished, work
from shrink.search.workbench import Workbench
from shrink.steps.bundling import is_ours
from shrink.steps.loading import Job, load
from shrink.steps.remaking import Remade
from shrink.steps.threads import one_thread_per_op

WINNER, RECIPE = "winner", "winner.toml"
PATHS = ("checkpoint", "data", "calibrate", "teacher_checkpoint")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of `shrink search`."""

    base: ExportRecipe  # its `prune` is the most that is tried
    goal: Goal
    targets: tuple[str, ...]  # alternatives
    resolutions: tuple[int, ...]  # none: those that the model takes
    epochs: tuple[int, ...]  # none: those of the recipe
    boards: tuple[str, ...]
    budget: Budget
    places: Places  # where keys of boards and emulators are kept
    place: str  # of the study: a file or a URL


@dataclass(frozen=True, slots=True)
class Found:
    """What the study holds when this worker is done."""

    head: Head
    entries: list[Entry]
    best: Entry | None
    made: Remade | None  # the graph of the best, where this worker has just made it


def search(asked: Asked, progress: Progress, tell: Callable[[str], None]) -> Found:
    """Work on a study until it has enough trials.

    Raises:
        Problem: one of the classes in `shrink.errors`.
    """
    timing = clocks(asked.boards, asked.places, needed=asked.goal.timed)
    base = msgspec.structs.replace(asked.base, max_drop=asked.goal.max_drop)
    with one_thread_per_op():
        with progress.stage("load model and data"):
            job = load(base, ())
            points = space.make(base, job.model, asked.resolutions, asked.targets, asked.epochs)
            study = Study(asked.place, _head(asked, job, points), seed=base.seed)
        for line in points.declined:
            tell(f"  not searched: {line}")
        bench = Workbench(base, points, timing)

        def make(point: Point, look: Look, stage: Stage) -> Result:
            best = winner(asked.goal, study.entries())
            bench.keep_only(() if best is None else (best.point,))
            return bench.make(point, look, stage)

        if finished(study.entries()) < asked.budget.trials:
            with progress.stage("what all points are compared with") as stage:
                bench.prepare(stage)
            work(study, make, bench.sketch, asked.budget, progress, tell)
    entries = study.entries()
    best = winner(asked.goal, entries)
    return Found(study.head, entries, best, None if best is None else bench.remade.get(best.point))


def export_winner(
    asked: Asked, found: Found, out: Path, *, force: bool, progress: Progress
) -> tuple[Report, dict[str, str]]:
    """The winner as bundles below `out`, with the recipe that makes them again and pictures of the front.

    Returns:
        the report of the export, and the SHA-256 of every file that it wrote, by target.
    """
    assert found.best is not None and found.best.result is not None
    recipe = found.head.space.recipe(asked.base, found.best.point, asked.goal.max_drop)
    report = pipeline.export(
        recipe, out / WINNER, force=force, command=("shrink", "search"), made=found.made, progress=progress
    )
    (out / RECIPE).write_text(_toml(recipe), encoding="utf-8")
    for name, text in draw.pictures(found.head, found.entries).items():
        (out / name).write_text(text, encoding="utf-8")
    written = [file.target for file in found.best.result.files if (out / WINNER / file.target).is_dir()]
    return report, {target: _sha256(out / WINNER / target) for target in written}


def check_out(out: Path, *, force: bool) -> None:
    """Refuse a place that is in the way, before any work is done for it."""
    check_free(out / WINNER, replace=force, is_ours=is_ours)


def _sha256(bundle: Path) -> str:
    """Of the model in a bundle."""
    (model,) = bundle.glob("model.*")
    return hashlib.sha256(model.read_bytes()).hexdigest()


def _toml(recipe: ExportRecipe) -> str:
    """A recipe as a file that may be read from anywhere on this machine."""
    asked = _given(msgspec.to_builtins(recipe))
    for table, key in ((asked, "model"), (asked.get("tune", {}), "teacher")):
        source, _, rest = table.get(key, "").partition(":")
        if source.endswith(".py"):
            table[key] = f"{Path(source).resolve()}:{rest}"
        elif source in ("pruned", "tuned"):
            table[key] = f"{source}:{Path(rest).resolve()}"
    return "# Made by `shrink search`; give it to `shrink export --recipe`.\n" + tomli_w.dumps(asked)


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """What is not as it would be anyway, with whole paths: TOML has no word for "none"."""
    kept = {key: value for key, value in table.items() if value not in (None, (), [])}
    whole = {key: str(Path(kept[key]).resolve()) for key in PATHS if key in kept and Path(kept[key]).exists()}
    return {key: _given(value) if isinstance(value, dict) else value for key, value in (kept | whole).items()}


def _head(asked: Asked, job: Job, points: Space) -> Head:
    varied = ("model", "checkpoint", "data", "targets", "prune", "max_drop")  # hashed by content, or of the space
    rest = {key: value for key, value in msgspec.to_builtins(asked.base).items() if key not in varied}
    boards = sorted(asked.boards)
    return Head(
        model=_model(job.model),
        data=_data(job.split.evaluation, job.split.calibration),
        recipe=_hash(msgspec.json.encode([rest, boards], order="sorted")),
        goal=asked.goal,
        space=points,
    )


def _model(model: Model) -> str:
    """Hash of all numbers of a model and of how images are prepared for it."""
    digest = hashlib.sha256(msgspec.json.encode(model.preprocess))
    for name, tensor in sorted(model.module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _data(*parts: Images) -> str:
    """Hash of which images there are, their labels and sizes; of the pixels of none."""
    digest = hashlib.sha256()
    for images in parts:
        labels = b"" if images.labels is None else images.labels.tobytes()
        digest.update(msgspec.json.encode([images.refs, [images.size(i) for i in range(len(images))]]) + labels)
    return digest.hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
