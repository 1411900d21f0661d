"""Files of one network of `pruning_speed`: python -m benchmarks.pruning_speed_row SPEC FACTOR PLACE SHARED."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks.images import some_images
from benchmarks.randomize import randomize
from benchmarks.rows import write_whole
from benchmarks.steps import make
from benchmarks.zoo_row import pixels
from shrink import models, prune, targets
from shrink.graph.capture import capture

SIZES = ("whole", "small")
KINDS = ("tflite-fp32", "tflite-int8")
CALIBRATION = 16  # images; ranges change no time


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What the files are of."""

    input_shape: tuple[int, ...]  # (1, C, H, W)
    macs_before: int
    macs_after: int


def make_all(spec: str, factor: float, place: Path, shared: Path) -> None:
    """Write SIZE-KIND for each, and then `made.json`."""
    model = models.load(spec)
    images = some_images(shared, place / "images", CALIBRATION)
    few = torch.from_numpy(pixels(model, images.subset(np.arange(2))))
    randomize(model.module, [image[None] for image in few], seed=0)
    whole = capture(model.module.requires_grad_(False), model.input_shape)
    wish = prune.Settings(f"{factor:g}x", "macs", 1 / factor, score="magnitude")
    pruned = prune.run(whole, wish, None)
    for size, graph in zip(SIZES, (whole, pruned.graph), strict=True):
        for kind in KINDS:
            (place / f"{size}-{kind}").write_bytes(make(model, graph, targets.load(kind), images, "fast").model)
    plan = pruned.plan
    about = Made(input_shape=model.input_shape, macs_before=plan.macs_before, macs_after=plan.macs_after)
    write_whole(place / "made.json", msgspec.json.encode(about))


if __name__ == "__main__":
    make_all(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
