"""From a model's name to a module that is ready to be captured, and all that is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from device_runner.manifest import Preprocess
from shrink.errors import ModelError
from shrink.models import checkpoint as checkpoints
from shrink.models import pruned_source, python_source, zoo
from shrink.models.spec import Spec, parse
from shrink.models.transforms import at_side, check, input_shape

SOURCES: dict[str, Callable[[Spec], zoo.Built]] = {
    "torchvision": zoo.torchvision,
    "timm": zoo.timm,
    "pruned": pruned_source.pruned,
    "tuned": pruned_source.pruned,
}  # any other source is the user's own Python code


@dataclass(frozen=True, slots=True)
class Model:
    """A model in eval mode on the CPU, its parameters frozen."""

    module: nn.Module
    spec: str  # as the user wrote it
    preprocess: Preprocess
    input_shape: tuple[int, int, int, int]  # (1, C, H, W)
    outputs: int  # scores per image
    labels: tuple[str, ...] | None  # one per output, if the library tells them
    weights: str  # "checkpoint", "pretrained", "random", or "factory": whatever the user's own code put there
    checkpoint_sha256: str | None
    trained_on: frozenset[bytes] = frozenset()  # what `shrink tune` trained with: beginnings of hashes of contents


def load(spec: str, *, checkpoint: Path | None = None, preprocess: Preprocess | None = None) -> Model:
    """Build a model, load its weights, and find out what goes in and comes out.

    Args:
        spec: `torchvision:NAME`, `timm:NAME`, `FILE.py:factory` or `package.module:factory`, each with
            arguments for the factory if wanted: `timm:resnet18?num_classes=5`; or `pruned:DIR` or `tuned:DIR`.
        checkpoint: a state dict of this model, safetensors or torch.save.
        preprocess: how images were prepared in training; None: as the library says.

    Raises:
        ModelError: the model cannot be found or built, or does not take or give what an image classifier does.
        CheckpointError: the weights are missing, damaged, unsafe or of another model.
    """
    request = parse(spec)
    stored = None if checkpoint is None else checkpoints.read_state_dict(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are the same in every run
        built = SOURCES.get(request.source, python_source.build)(request)
    if stored is not None:
        checkpoints.apply(built.module, stored[0])
    module = built.module.to("cpu").eval().requires_grad_(False)
    chosen = check(built.default_preprocess() if preprocess is None else preprocess)
    shape = input_shape(chosen)
    outputs = count_outputs(module, shape, spec)
    return Model(
        module=module,
        spec=spec,
        preprocess=chosen,
        input_shape=shape,
        outputs=outputs,
        labels=built.labels if built.labels is not None and len(built.labels) == outputs else None,
        weights=built.weights if stored is None else "checkpoint",
        checkpoint_sha256=None if stored is None else stored[1],
        trained_on=built.trained_on,
    )


def resized(model: Model, side: int) -> Model:
    """The same model, given smaller or larger images.

    Args:
        side: of the square image that the model is given, in pixels.

    Raises:
        ModelError: the model takes no images of that size.
    """
    preprocess = at_side(model.preprocess, side)
    shape = input_shape(preprocess)
    count_outputs(model.module, shape, model.spec)
    return replace(model, preprocess=preprocess, input_shape=shape)


def count_outputs(module: nn.Module, shape: tuple[int, int, int, int], spec: str) -> int:
    """Run one image of zeros through the model; it must give a tensor of shape (1, outputs)."""
    try:
        with torch.no_grad():
            output = module(torch.zeros(shape))
    except Exception as error:  # anything the model's own code raises
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
        what = f"{spec} does not take an input of shape {shape}"
        fix = "give the size it was trained with: [preprocess] in the recipe, or an argument such as ?img_size=192"
        raise ModelError(what, reason, fix) from error
    if isinstance(output, Tensor) and output.ndim == 2 and output.shape[0] == 1 and output.is_floating_point():
        return int(output.shape[1])
    given = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise ModelError(
        f"{spec} gives {given}",
        "an image classifier gives one tensor of shape (1, classes)",
        "wrap it in a module that returns only the class scores, and give that as FILE.py:factory",
    )
