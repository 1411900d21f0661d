"""Third step: ranges from calibration images, and a quantization plan per int8 target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shrink import quantize
from shrink.data.checks import CalibrationStats, check_calibration
from shrink.data.stream import SkipLog, stream
from shrink.progress import Stage
from shrink.steps.capturing import Lowered
from shrink.steps.loading import Job, Rules
from shrink.steps.threads import workers

BATCH = 8  # images decoded ahead
HELD_OUT_EVERY = 4  # every so-manieth calibration image sets no range and judges the candidates instead
HELD_OUT_LEAST, HELD_OUT_MOST = 32, 128
"""Images that judge, if there are as many; 32 tell candidates apart to a tenth, and ResNet-20's differ by no more."""
HELD_OUT_PIXELS = 32 * 224 * 224  # of all that judge, where they are more than the least: small ones take little time


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What the calibration images decided."""

    plans: Mapping[str, quantize.Chosen]  # int8 target -> its plan
    images: int  # that could be read, those held out among them


def calibrate(job: Job, graphs: Mapping[Rules, Lowered], skipped: SkipLog, stage: Stage) -> Calibrated:
    """Observe ranges in one pass over the images per graph, then choose a plan per int8 target."""
    plans: dict[str, quantize.Chosen] = {}
    images = 0
    wanted = [target for target in job.targets if target.calibrated]
    for lowered in dict.fromkeys(graphs[job.rules(target)] for target in wanted):
        mine = [target for target in wanted if graphs[job.rules(target)] is lowered]
        given = _Images(job, skipped, stage)
        observed = quantize.observe(
            lowered.graph,
            mine,
            iter(given),
            normalization=(job.model.preprocess.mean, job.model.preprocess.std),
            workers=workers(),
        )
        for target in mine:
            plans[target.name] = quantize.choose(
                lowered.graph,
                observed,
                target,
                given.held_out,
                effort=job.recipe.quantize,
                like=next(iter(plans.values()), None),
                workers=workers(),
                track=stage.track,
            )
        images = given.count
    return Calibrated(plans, images)


class _Images:
    """Calibration images one by one, (1, C, H, W), but for a few in `held_out`; checked once all were read.

    They come in random order, not class by class, so that the first few are a fair sample of all.
    """

    def __init__(self, job: Job, skipped: SkipLog, stage: Stage) -> None:
        self._job, self._skipped, self._stage = job, skipped, stage
        self.held_out: list[Tensor] = []
        self.count = 0

    def __iter__(self) -> Iterator[Tensor]:
        images, preprocess = self._job.split.calibration, self._job.model.preprocess
        images = images.subset(np.random.default_rng(self._job.recipe.seed).permutation(len(images)))
        batches = stream(images, preprocess, batch=BATCH, skipped=self._skipped)
        stats = CalibrationStats()
        most = most_held_out(self._job.model.input_shape)
        for batch in self._stage.track(batches, total=-(-len(images) // BATCH)):
            stats.add(batch.x)
            for x in torch.from_numpy(batch.x).unsqueeze(1):
                self.count += 1
                if self.count % HELD_OUT_EVERY == 0 and len(self.held_out) < most:
                    self.held_out.append(x.clone())  # a view would keep the whole batch
                else:
                    yield x
        check_calibration(stats, preprocess)


def most_held_out(shape: Sequence[int]) -> int:
    """How many images of a shape (1, C, H, W) judge, at most."""
    _, _, height, width = shape
    return min(max(HELD_OUT_LEAST, HELD_OUT_PIXELS // (height * width)), HELD_OUT_MOST)
