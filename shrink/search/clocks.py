"""What measures latency: this machine or a board, always in turns with the file of the whole float model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from device_runner.golden import make_golden
from device_runner.manifest import Manifest
from shrink.bench.latency import interleave, ratio
from shrink.boards.board import Board
from shrink.boards.kinds import board_of
from shrink.boards.places import Places
from shrink.errors import RecipeError, StageError
from shrink.export.bundle import one_line_labels, write_bundle
from shrink.export.names import MODEL_NAMES
from shrink.progress import Quiet
from shrink.steps import benching
from shrink.steps.bundling import labels
from shrink.steps.loading import Job
from shrink.steps.timing import inference
from shrink.steps.writing import Artifact

HERE = "local"
LEAST_SECONDS, MOST_SECONDS = 0.5, 10.0
IMAGES = 4  # that a board answers beside; they are not what is wanted
BOARD_SECONDS, BOARD_SAMPLES, BOARD_REPEATS = 3.0, 100, 3


@dataclass(frozen=True, slots=True)
class Timed:
    """A file and the job that it was made in."""

    job: Job
    item: Artifact


class Clock(Protocol):
    """Something that times a file beside another."""

    @property
    def name(self) -> str:
        """As the user wrote it."""
        ...

    def time(self, file: Timed, whole: Timed, *, seed: int) -> tuple[float, float]:
        """Median milliseconds of `file`, and the ratio of its time to that of `whole`, one thread each."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """This machine, within this process."""

    name: str = HERE

    def time(self, file: Timed, whole: Timed, *, seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(seed)
        runs = {name: inference(one.item, _noise(one.item, rng)) for name, one in (("file", file), ("whole", whole))}
        samples = interleave(runs, rng=rng, min_seconds=LEAST_SECONDS, max_seconds=MOST_SECONDS)
        return samples["file"].median, ratio(samples["file"], samples["whole"]).median


@dataclass(frozen=True, slots=True)
class There:
    """A board, as `shrink bench` measures on it."""

    board: Board

    @property
    def name(self) -> str:
        return self.board.url

    def time(self, file: Timed, whole: Timed, *, seed: int) -> tuple[float, float]:
        """See `Clock`.

        Raises:
            StageError: the link was lost, or the board is an emulation.
            Problem: the board cannot run the files.
        """
        with tempfile.TemporaryDirectory(prefix="shrink-search-") as folder:
            asked = benching.Request(
                bundle=_bundle(Path(folder) / "file", file),
                against=_bundle(Path(folder) / "whole", whole),
                images=IMAGES,
                seed=seed,
                repeats=BOARD_REPEATS,
                seconds=BOARD_SECONDS,
                samples=BOARD_SAMPLES,
            )
            found = benching.bench(asked, self.board, command=("shrink", "search"), progress=Quiet())
        if found.candidate is None or found.candidate.times is None or found.ratio is None:
            why = found.problem or "; ".join(found.reasons) or "it takes no times"
            raise StageError(f"{self.name} gave no latency", why, "see what it says to `shrink bench --on`")
        return found.candidate.times.p50, found.ratio.median


def _noise(item: Artifact, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """An image as the file was made for, (C, H, W)."""
    spec = item.candidate.input
    _, *rest = spec.shape
    channels, height, width = (rest[2], rest[0], rest[1]) if spec.layout == "NHWC" else rest
    return rng.standard_normal((channels, height, width), dtype=np.float32)


def _bundle(folder: Path, one: Timed) -> Path:
    """The file as a bundle that a runner takes; nothing is known of its answers yet."""
    job, item = one.job, one.item
    images = job.split.evaluation
    manifest = Manifest(
        name=f"{job.model.spec} for {item.target.name}",
        target=item.target.name,
        format=item.target.format,
        task="classification",
        model=MODEL_NAMES[item.target.format],
        input=item.candidate.input,
        output=item.candidate.output,
        preprocess=job.model.preprocess,
        labels=one_line_labels(labels(job.model, images)),
        files=(),
        truth=item.inspection.truth,
        accuracy=None,
        latency=None,
        provenance={"recipe": msgspec.to_builtins(job.recipe)},
    )
    encoded = [images.encoded(index) for index in range(min(IMAGES, len(images)))]
    folder.mkdir()
    golden = make_golden(encoded, job.model.preprocess, item.candidate.input, item.candidate.engine.run)
    write_bundle(folder, manifest, item.model, golden)
    return folder


def clocks(names: Sequence[str], places: Places, *, needed: bool) -> tuple[Clock, ...]:
    """The clocks of that name.

    Args:
        needed: whether a limit is one of time.

    Raises:
        BoardError: there is no such board.
        RecipeError: it is emulated, and a limit is one of time.
    """
    found: list[Clock] = []
    for name in dict.fromkeys(names):
        board = board_of(name, places)
        if board.emulates and needed:
            why = f"{name} emulates {board.emulates}: how long that takes says nothing about the real one"
            raise RecipeError("a limit of time cannot be measured there", why, "name a real board, or take it out")
        if not board.emulates:
            found.append(Here() if name == HERE else There(board))
    return tuple(found)
