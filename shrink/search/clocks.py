"""What measures latency: this machine, always in turns with the file of the whole float model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shrink.bench.latency import interleave, ratio
from shrink.errors import RecipeError
from shrink.steps.timing import inference
from shrink.steps.writing import Artifact

LEAST_SECONDS, MOST_SECONDS = 0.5, 10.0


class Clock(Protocol):
    """Something that times a file beside another."""

    @property
    def name(self) -> str:
        """As the user wrote it."""
        ...

    def time(self, item: Artifact, whole: Artifact, *, seed: int) -> tuple[float, float]:
        """Median milliseconds of `item`, and the ratio of its time to that of `whole`, one thread each."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """This machine."""

    name: str = "local"

    def time(self, item: Artifact, whole: Artifact, *, seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(seed)
        runs = {name: inference(one, _noise(one, rng)) for name, one in (("item", item), ("whole", whole))}
        samples = interleave(runs, rng=rng, min_seconds=LEAST_SECONDS, max_seconds=MOST_SECONDS)
        return samples["item"].median, ratio(samples["item"], samples["whole"]).median


def _noise(item: Artifact, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """An image as the file was made for, (C, H, W)."""
    spec = item.candidate.input
    _, *rest = spec.shape
    channels, height, width = (rest[2], rest[0], rest[1]) if spec.layout == "NHWC" else rest
    return rng.standard_normal((channels, height, width), dtype=np.float32)


def clocks(names: tuple[str, ...]) -> tuple[Clock, ...]:
    """The clocks of that name.

    Raises:
        RecipeError: there is none.
    """
    for name in names:
        if name != "local":
            why = "latency is measured on this machine alone so far"
            raise RecipeError(f"there is no board {name!r}", why, "use --on local")
    return tuple(Here() for _ in dict.fromkeys(names))
