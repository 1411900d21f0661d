"""Whether the float model answers at all, before any work is done for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shrink.data.images import Images
from shrink.data.stream import stream
from shrink.errors import DataError, ModelError
from shrink.models import Model

TRIED = 8  # images
RANDOM = "the weights are random: accuracy and agreement say nothing about a trained model; size and latency do"

Floats = NDArray[np.float32]


def float_scores(model: Model) -> Callable[[Floats], Floats]:
    """The float model as a function of arrays: (b, C, H, W) -> (b, outputs)."""

    def run(x: Floats) -> Floats:
        with torch.no_grad():
            scores: Floats = model.module(torch.from_numpy(x)).numpy()
        return scores

    return run


def check_float(model: Model, images: Images) -> tuple[str, ...]:
    """Run the float model on a few images.

    Random weights may answer anything, for they stand for no trained model, and are noted; any others
    must give finite scores that depend on the image.

    Returns:
        what a reader of the results must know.

    Raises:
        ModelError: NaN or infinity, naming the first layer with it; or the same scores for all images.
    """
    x = _few(model, images)
    scores = float_scores(model)(x)
    if not np.isfinite(scores).all():
        raise ModelError(
            f"{model.spec} gives NaN or infinity",
            f"layer {_first_bad_layer(model.module, torch.from_numpy(x))!r} is the first to do so",
            "check the weights, and that the preprocessing is the one the model was trained with",
        )
    if model.weights == "random":
        return (RANDOM,)
    if len(np.unique(x, axis=0)) > 1 and (scores == scores[0]).all():
        raise ModelError(
            f"{model.spec} gives the very same scores for {len(x)} different images",
            "its answer does not depend on the image, so it was not trained, or its weights are not the trained ones",
            "give the trained weights with --checkpoint",
        )
    return ()


def _few(model: Model, images: Images) -> Floats:
    """Up to `TRIED` images from all over the set, prepared; shape (b, C, H, W)."""
    spread = np.linspace(0, len(images) - 1, min(TRIED, len(images))).astype(np.int64)
    found: list[Floats] = []
    for index in spread:
        try:
            found += [batch.x for batch in stream(images.subset([index]), model.preprocess, batch=1)]
        except DataError:
            continue  # whether too many cannot be read is judged when all are
    return np.concatenate(found) if found else np.zeros((1, *model.input_shape[1:]), np.float32)


def _first_bad_layer(module: nn.Module, x: Tensor) -> str:
    """Path of the first layer, in the order run, whose output is not finite."""
    bad: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                bad.append(name)

        return look

    hooks = [layer.register_forward_hook(watch(name)) for name, layer in module.named_modules()]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return bad[0] if bad and bad[0] else type(module).__name__
