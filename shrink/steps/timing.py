"""Sixth step: each artefact in turns with its float twin, one thread each, on this host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runner.manifest import Latency
from shrink.bench.host import host
from shrink.bench.latency import Samples, interleave, latency, ratio
from shrink.progress import Stage
from shrink.report.schema import Timing
from shrink.steps.loading import Job
from shrink.steps.writing import Artifact

DIGITS = 4  # of milliseconds: below a microsecond is noise


@dataclass(frozen=True, slots=True)
class Timed:
    """The latency of one target and the raw times behind it."""

    latency: Latency
    timing: Timing


def measure(job: Job, artifacts: Mapping[str, Artifact], stage: Stage) -> dict[str, Timed]:
    """Time the targets, those with the same float twin together with it."""
    rng = np.random.default_rng(job.recipe.seed)
    noise = rng.standard_normal(job.model.input_shape[1:], dtype=np.float32)  # (C, H, W)
    timed: dict[str, Timed] = {}
    for twin in stage.track(list(dict.fromkeys(target.float_twin for target in job.targets))):
        mine = [target.name for target in job.targets if target.float_twin == twin]
        runs = {name: inference(artifacts[name], noise) for name in dict.fromkeys((twin, *mine))}
        samples = interleave(runs, rng=rng)
        timed |= {name: _timed(samples[name], samples[twin] if name != twin else None) for name in mine}
    return timed


def inference(item: Artifact, x: NDArray[np.float32]) -> Callable[[], object]:
    """One inference on one image (C, H, W)."""
    ready = item.candidate.encode(x.transpose(1, 2, 0))
    return lambda: item.candidate.engine.run(ready)


def _timed(samples: Samples, reference: Samples | None) -> Timed:
    """With the interval of the ratio, and what speaks against trusting it."""
    found = ratio(samples, reference) if reference else None
    timing = Timing(
        samples_ms=tuple(round(ms, DIGITS) for ms in samples.samples_ms),
        ratio_low=found.low if found else None,
        ratio_high=found.high if found else None,
        warnings=samples.warnings,
    )
    return Timed(latency(samples, reference, host=host()), timing)
