"""What the float model and every artefact answer to the same images, in one pass over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runner.engines.base import Engine
from device_runner.errors import EngineError
from device_runner.manifest import Input, Output, Preprocess
from device_runner.postprocess import scores
from device_runner.preprocess import encode
from shrink.data.levels import grey_levels
from shrink.errors import ArtifactError

LEAST_ERROR = 0.05  # of quantized scores, over the deviation of the float ones, that says something
DECORRELATED = 1.5  # times the error of quantization: another rounding of a few halves is soon other noise of that size

Floats = NDArray[np.float32]
Reference = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An artefact loaded in its real runtime."""

    engine: Engine
    input: Input
    output: Output
    name: str = "the artefact"  # in errors
    preprocess: Preprocess | None = None  # whose normalization an input of pixels undoes

    def encode(self, image: Floats) -> NDArray[np.generic]:
        """The input of the file from one normalized image (H, W, C); exact for one that came from grey levels."""
        if self.input.values == "pixels":
            assert self.preprocess is not None, "grey levels are found by the normalization"
            return encode(grey_levels(image, self.preprocess), self.input)
        return encode(image, self.input)

    def run(self, x: Floats) -> Floats:
        """Scores (b, classes) of images (b, C, H, W), one inference each.

        Raises:
            ArtifactError: the runtime fails on an image, or the answer is NaN or infinite.
        """
        try:
            return np.stack([self._scores(image) for image in x.transpose(0, 2, 3, 1)])
        except EngineError as error:
            fix = "check the weights, and calibrate with more, typical images"
            raise ArtifactError(f"{self.name}: {error.what}", error.why, fix) from error

    def _scores(self, image: Floats) -> Floats:
        return scores(self.engine.run(self.encode(image)), self.output)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Scores of n images, rows in the same order everywhere."""

    labels: NDArray[np.int64]  # (n,)
    indices: NDArray[np.int64]  # (n,): which images of the set
    reference: Floats  # (n, classes) of the float model
    candidates: Mapping[str, Floats]  # target -> (n, classes)
    between: Mapping[str, Floats] = field(default_factory=dict)  # what was done to the model before -> (n, classes)


def collect(
    batches: Iterable[Any],
    reference: Reference,
    candidates: Mapping[str, Candidate],
    between: Mapping[str, Reference] | None = None,
) -> Answers:
    """Run everything on every batch; images are decoded once and dropped.

    Args:
        batches: of `shrink.data.stream`, labelled.
        reference: the float model, (b, C, H, W) -> (b, classes).
        candidates: target -> loaded artefact. They run side by side, each in a thread of its own.
        between: float models on the way from the one to the others, such as the pruned one.
    """
    rows: dict[str, list[Floats]] = {name: [] for name in candidates}
    steps: dict[str, list[Floats]] = {name: [] for name in between or {}}
    wanted, labels, indices = [], [], []
    with ThreadPoolExecutor(max(len(candidates), 1)) as pool:
        for batch in batches:
            running = {name: pool.submit(candidate.run, batch.x) for name, candidate in candidates.items()}
            wanted.append(reference(batch.x))
            for name, model in (between or {}).items():
                steps[name].append(model(batch.x))
            labels.append(batch.labels)
            indices.append(batch.indices)
            for name, future in running.items():
                rows[name].append(future.result())
    return Answers(
        np.concatenate(labels),
        np.concatenate(indices),
        np.concatenate(wanted),
        {n: np.concatenate(r) for n, r in rows.items()},
        {n: np.concatenate(r) for n, r in steps.items()},
    )


def relative_error(given: Floats, wanted: Floats) -> float:
    """Largest difference of any score over the largest score of the reference."""
    return float(np.abs(given - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))


def most_of_rounding(simulated: float) -> float:
    """Error of a quantized file up to which it only rounds otherwise than its simulation, which errs by `simulated`.

    Both are root mean squares over the deviation of the float scores. A file beyond it was written wrongly, or its
    runtime computes it so.
    """
    return max(LEAST_ERROR, DECORRELATED * simulated)
