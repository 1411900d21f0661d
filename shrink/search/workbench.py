"""Makes and measures one point: cheap looks first, and what points have in common is done once.

A look gives the best case of a point: what it has at least. A point whose best case is farther from the goal than
a point that is finished is given up there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from shrink import prune, quantize, targets
from shrink.data.images import Images
from shrink.data.stream import SkipLog, stream
from shrink.progress import Stage
from shrink.prune.cost import macs, parameters
from shrink.recipe import ExportRecipe
from shrink.search.clocks import Clock, Timed
from shrink.search.goal import Figures, Look
from shrink.search.points import Point, Space
from shrink.search.result import Clocked, File, Result, Weighed, weight
from shrink.steps.calibrating import Calibrated, calibrate
from shrink.steps.capturing import capture_model, lower_all
from shrink.steps.loading import Job, load
from shrink.steps.pruning import calibration_tensor, settings
from shrink.steps.remaking import Remade, remade
from shrink.steps.rounding import train_rounded
from shrink.steps.sanity import FloatModel
from shrink.steps.teaching import Lesson, prepare
from shrink.steps.tuning import tune_graph
from shrink.steps.writing import write
from shrink.targets import Target
from shrink.verify.judge import check_answers
from shrink.verify.statistics import paired_interval

JUDGES = 5000  # images at most; as many or more are left for the last word
FEW = 256  # images of a first look
SKETCHED_BY = 32  # calibration images of a file that nobody asks what is on an image
ONE_SIDED = 0.90  # two-sided, so that the lower end is a one-sided 95 % bound
UNTRAINED = 5.0  # points that training may win back of what a refitted graph loses
MOST_STATIONS = 2  # beside that of the model's own size: each holds its calibration images
BATCH = 32
WEIGHT_BYTES = {"int8": 1, "int16x8": 1, "fp16": 2, "fp32": 4}

Answers = NDArray[np.int64]


class Alone(Job):
    """A job that leaves the float twins out: points are compared with the whole model's, which are made once."""

    @property
    def files(self) -> tuple[Target, ...]:
        """The targets."""
        return self.targets


@dataclass(slots=True, eq=False)
class Station:
    """What all points of one resolution share."""

    job: Alone
    captured: fx.GraphModule
    _images: Tensor | None = None
    _ranked: prune.Ranked | None = None
    _reference: prune.Reference | None = None
    _lesson: Lesson | None = None

    @property
    def images(self) -> Tensor:
        """Calibration images, (N, C, H, W)."""
        if self._images is None:
            self._images = calibration_tensor(self.job, SkipLog())
        return self._images

    def ranked(self, stage: Stage) -> prune.Ranked:
        """What may go; the same for every factor."""
        if self._ranked is None:
            self._ranked = prune.rank(
                self.captured, settings(self.job.recipe), self.images, track=lambda items, _: stage.track(list(items))
            )
        return self._ranked

    def refit(self, made: prune.Cut, stage: Stage) -> prune.Pruned:
        """What is left, fitted; what it is compared with is the same for every factor."""
        ranked = self.ranked(stage)
        if self._reference is None:
            self._reference = prune.reference(ranked, self.images)
        return prune.refit(ranked, made, self.images, self._reference)

    def lesson(self, job: Job, stage: Stage) -> Lesson | None:
        """What is left is trained with that, if the recipe of `job` asks; images and the teacher's answers are the same
        for all."""
        if self._lesson is None:
            self._lesson = prepare(job, self.captured, SkipLog(), stage)
        return self._lesson


@dataclass(slots=True, eq=False)
class Workbench:
    """One worker's tools.

    Attributes:
        base: its `prune` is the most that is tried.
        space: where the points are from.
        clocks: what measures latency; none: nothing is timed.
        remade: the graphs of points that were made here, where pruning or training changed them.
    """

    base: ExportRecipe
    space: Space
    clocks: tuple[Clock, ...]
    remade: dict[Point, Remade] = field(default_factory=dict)
    _stations: dict[int, Station] = field(default_factory=dict)
    _whole: dict[str, Timed] = field(default_factory=dict)  # float target -> the file of the whole model
    _judges: Images | None = None
    _wanted: Answers | None = None  # of the whole float model to the judges

    def prepare(self, stage: Stage) -> None:
        """What every point is compared with: the whole model's answers and its float files."""
        station = self._station(self.space.own)
        self._judges, self._wanted = _judges(station.job, stage)
        names = {name for names in self.space.targets for name in names.split("+")}
        twins = dict.fromkeys(targets.load(name).float_twin for name in sorted(names))
        job = replace(station.job, targets=tuple(map(targets.load, twins)))
        files = write(job, lower_all(job, station.captured), Calibrated({}, 0), stage)
        self._whole = {name: Timed(job, item) for name, item in files.items()}

    def make(self, point: Point, look: Look, stage: Stage) -> Result:
        """Make a point and judge it.

        Args:
            point: of the space.
            look: raises to stop here.
            stage: where to show what is going on.

        Raises:
            Problem: the point cannot be made.
        """
        station = self._station(point.resolution)
        recipe = self.space.recipe(self.base, point, self.base.max_drop)
        job = replace(station.job, recipe=recipe, targets=tuple(map(targets.load, recipe.targets)))
        left = self._smaller(job, station, look, stage)
        graph = station.captured if left is None else left.graph
        graphs = lower_all(job, graph)
        calibrated = train_rounded(job, station.lesson(job, stage), calibrate(job, graphs, SkipLog(), stage), stage)
        for name, chosen in calibrated.plans.items():
            simulated = quantize.simulation(quantize.apply(chosen.graph, chosen.plan))
            look(f"simulated {name} on few images", self._best_case(job, simulated))
        artifacts = write(job, graphs, calibrated, stage)
        answers = self._answers(job, {name: item.candidate.run for name, item in artifacts.items()}, self.judges)
        files = tuple(self._file(Timed(job, item), answers[name], stage) for name, item in artifacts.items())
        if left is not None:
            self.remade[point] = left
        return Result(files=files, macs=macs(graph), parameters=parameters(graph))

    def sketch(self, point: Point, stage: Stage) -> Figures:
        """About the size and time of a point: what is left of the model is neither fitted nor trained.

        Where a target has several ways to round, the point may be given another one than its sketch: that is chosen by
        answers.

        Raises:
            Problem: the point cannot be made.
        """
        station = self._station(point.resolution)
        recipe = msgspec.structs.replace(self.space.recipe(self.base, point, self.base.max_drop), quantize="fast")
        split = station.job.split
        few = split.calibration.subset(range(min(SKETCHED_BY, len(split.calibration))))
        job = replace(station.job, recipe=recipe, targets=tuple(map(targets.load, recipe.targets)),
                      split=replace(split, calibration=few))  # fmt: skip
        graph = station.captured
        if recipe.pruning is not None:
            graph = prune.cut(graph, station.ranked(stage), settings(recipe)).graph
        graphs = lower_all(job, graph)
        artifacts = write(job, graphs, calibrate(job, graphs, SkipLog(), stage), stage)
        return weight([self._weighed(Timed(job, item), stage) for item in artifacts.values()])

    def keep_only(self, points: Collection[Point]) -> None:
        """Let go of the graphs of all other points."""
        self.remade = {point: graph for point, graph in self.remade.items() if point in points}

    @property
    def judges(self) -> Images:
        """The images that all points are judged by; at least as many others are not looked at."""
        assert self._judges is not None, "prepare() was not called"
        return self._judges

    def _smaller(self, job: Job, station: Station, look: Look, stage: Stage) -> Remade | None:
        asked = settings(job.recipe) if job.recipe.pruning else None
        if asked is None:
            look("count of weights", _least_size(job, parameters(station.captured)))
            return None
        ranked = station.ranked(stage)
        made = prune.cut(station.captured, ranked, asked)
        look("count of weights", _least_size(job, made.plan.parameters_after))
        fitted = station.refit(made, stage)
        look("refitted, on few images", _after_training(self._best_case(job, fitted.graph)))
        small = prune.train(
            ranked, made, fitted, station.images, seed=asked.seed, track=lambda items, _: stage.track(list(items))
        )
        if job.recipe.tune is not None and job.recipe.tune.epochs:
            look("trained a little, on few images", _after_training(self._best_case(job, small.graph)))
        tuned = tune_graph(job, station.lesson(job, stage), small.graph, stage)
        look("trained, on few images", self._best_case(job, small.graph if tuned is None else tuned.graph))
        return remade(job, small, tuned)

    def _station(self, side: int) -> Station:
        if side not in self._stations:
            others = [known for known in self._stations if known != self.space.own]
            if len(others) >= MOST_STATIONS:
                del self._stations[others[0]]
            point = Point(prune=self.space.most_pruned, resolution=side, targets=self.space.targets[0])
            recipe = self.space.recipe(self.base, point, self.base.max_drop)
            found = load(recipe, ())
            job = Alone(recipe, (), found.model, found.reference, found.split, found.notes, found.whole)
            self._stations[side] = Station(job, capture_model(job))
        return self._stations[side]

    def _best_case(self, job: Job, graph: fx.GraphModule) -> Figures:
        """The least that a graph surely loses."""
        few = self.judges.subset(range(min(FEW, len(self.judges))))
        answers = self._answers(job, {"": FloatModel(graph, takes_batches=False)}, few)[""]
        lost, won = self._flips(answers)
        return Figures(drop_likely=100 * paired_interval(lost, won, len(answers), confidence=ONE_SIDED)[0])

    def _answers(self, job: Job, runs: Mapping[str, Run], images: Images) -> dict[str, Answers]:
        """Best class of every image by every run; scores that are nonsense are refused."""
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in runs}
        for batch in stream(images, job.model.preprocess, batch=BATCH):
            for name, run in runs.items():
                found[name].append(run(batch.x))
        scores = {name: np.concatenate(parts) for name, parts in found.items()}
        assert self._wanted is not None
        for name, given in scores.items():
            check_answers(name or "the graph", given, self._wanted[: len(given)])
        return {name: given.argmax(1) for name, given in scores.items()}

    def _flips(self, answers: Answers) -> tuple[int, int]:
        """How many of the first judges are lost, and how many won."""
        assert self._wanted is not None and self.judges.labels is not None
        labels = self.judges.labels[: len(answers)]
        before, now = self._wanted[: len(answers)] == labels, answers == labels
        return int((before & ~now).sum()), int((~before & now).sum())

    def _file(self, file: Timed, answers: Answers, stage: Stage) -> File:
        lost, won = self._flips(answers)
        weighed = msgspec.structs.asdict(self._weighed(file, stage))
        return File(**weighed, images=len(answers), lost=lost, won=won)

    def _weighed(self, file: Timed, stage: Stage) -> Weighed:
        whole = self._whole[file.item.target.float_twin]
        return Weighed(
            target=file.item.target.name,
            sha256=hashlib.sha256(file.item.model).hexdigest(),
            size_bytes=len(file.item.model),
            size_ratio=len(file.item.model) / len(whole.item.model),
            clocked=tuple(self._clocked(file, whole, stage)),
        )

    def _clocked(self, file: Timed, whole: Timed, stage: Stage) -> Iterator[Clocked]:
        for clock in stage.track(self.clocks):
            median_ms, ratio = clock.time(file, whole, seed=self.base.seed)
            yield Clocked(board=clock.name, median_ms=median_ms, ratio=ratio)


Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Scores (b, classes) of images (b, C, H, W)."""


def _after_training(untrained: Figures) -> Figures:
    """What a graph may come to that is not trained yet."""
    assert untrained.drop_likely is not None
    return msgspec.structs.replace(untrained, drop_likely=untrained.drop_likely - UNTRAINED)


def _judges(job: Job, stage: Stage) -> tuple[Images, Answers]:
    """Half of the evaluation images, in random order and without those that cannot be read, and the model's answers."""
    images = job.split.evaluation
    half = np.random.default_rng(job.recipe.seed).permutation(len(images))[: max(1, min(JUDGES, len(images) // 2))]
    chosen = images.subset(half)
    batches = stage.track(stream(chosen, job.model.preprocess, batch=BATCH), total=-(-len(chosen) // BATCH))
    found = [(batch.indices, job.reference(batch.x).argmax(1)) for batch in batches]
    indices, answers = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return chosen.subset(indices), answers


def _least_size(job: Job, weights: int) -> Figures:
    """A file is not smaller than its weights; the float files are whole."""
    most = max(WEIGHT_BYTES[target.precision] for target in job.targets)
    return Figures(size_mb=weights * most / 1e6)
