"""Whether the float model answers at all, before any work is done for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shrink.data.images import Images
from shrink.data.stream import SkipLog, stream
from shrink.errors import DataError, ModelError
from shrink.models import Model

TRIED = 8  # images
ALIKE = 1e-3  # of the largest score: what the order of additions may change
RANDOM = "the weights are random: accuracy and agreement say nothing about a trained model; size and latency do"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FloatModel:
    """The float model as a function of arrays, (b, C, H, W) -> (b, outputs): what everything is compared with.

    Attributes:
        takes_batches: whether it answers images together as it answers them one by one. Code that was written
            for one image may not, and the device gives it one.
    """

    module: nn.Module
    takes_batches: bool

    def __call__(self, x: Floats) -> Floats:
        with torch.no_grad():
            parts = [torch.from_numpy(x)] if self.takes_batches else list(torch.from_numpy(x).unsqueeze(1))
            return np.concatenate([self.module(part).numpy() for part in parts])


def check_float(model: Model, images: Images) -> tuple[FloatModel, tuple[str, ...]]:
    """Run the float model on a few images.

    Random weights may answer anything, for they stand for no trained model, and are noted; any others
    must give finite scores that depend on the image.

    Returns:
        the model as a function, and what a reader of the results must know of it.

    Raises:
        ModelError: it fails; gives NaN or infinity, naming the first layer; or gives the same scores for all images.
    """
    x = _few(model, images)
    scores = _one_by_one(model, x)
    if not np.isfinite(scores).all():
        raise ModelError(
            f"{model.spec} gives NaN or infinity",
            f"layer {_first_bad_layer(model.module, x)!r} is the first to do so",
            "check the weights, and that the preprocessing is the one the model was trained with",
        )
    if model.weights != "random" and len(np.unique(x, axis=0)) > 1 and (scores == scores[0]).all():
        raise ModelError(
            f"{model.spec} gives the very same scores for {len(x)} different images",
            "its answer does not depend on the image: it was not trained, or these are not the trained weights",
            "give the trained weights with --checkpoint",
        )
    return FloatModel(model.module, _takes_batches(model.module, x, scores)), (RANDOM,) * (model.weights == "random")


def _few(model: Model, images: Images) -> Floats:
    """Up to `TRIED` images from all over the set, prepared; shape (b, C, H, W), b > 0."""
    spread = np.linspace(0, len(images) - 1, min(TRIED, len(images))).astype(np.int64)
    found: list[Floats] = []
    for index in spread:
        try:
            found += [batch.x for batch in stream(images.subset([index]), model.preprocess, skipped=SkipLog())]
        except DataError:
            continue  # whether too many cannot be read is judged when all are
    return np.concatenate(found) if found else np.zeros((1, *model.input_shape[1:]), np.float32)


def _one_by_one(model: Model, x: Floats) -> Floats:
    try:
        return FloatModel(model.module, takes_batches=False)(x)
    except Exception as error:  # anything the model's own code raises
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        raise ModelError(f"{model.spec} fails on an image", reason, "make its forward run on every image") from error


def _takes_batches(module: nn.Module, x: Floats, wanted: Floats) -> bool:
    try:
        given = FloatModel(module, takes_batches=True)(x)
    except Exception:  # anything the model's own code raises; one by one it did not
        return False
    return given.shape == wanted.shape and np.allclose(given, wanted, rtol=0, atol=ALIKE * float(np.abs(wanted).max()))


def _first_bad_layer(module: nn.Module, x: Floats) -> str:
    """Path of the first layer, in the order run, whose output is not finite."""
    bad: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                bad.append(name)

        return look

    hooks = [layer.register_forward_hook(watch(name)) for name, layer in module.named_modules()]
    try:
        FloatModel(module, takes_batches=False)(x)
    finally:
        for hook in hooks:
            hook.remove()
    return bad[0] if bad and bad[0] else type(module).__name__
