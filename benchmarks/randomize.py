"""Random weights under which every branch of a network does work.

Fresh networks are degenerate on purpose: the last norm of a residual branch, layer scales and heads
start at zero or near it. A converter folds such a branch away, and its time means nothing. And deep ones with batch
norms are chaotic: every norm magnifies what little its channels vary, until a rounding error decides the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shrink.verify.answers import relative_error

SMALLEST_GAIN = 0.1  # of a weight: standard deviation times the root of its inputs; below it a branch is silent
SMALLEST_VECTOR = 0.05  # mean size of a 1-D factor such as a layer scale
SMALLEST_VARIANCES = (0.1, 0.5, 1.0)  # of a channel, over the mean square of its layer: the first that is steady
STEADY = 2e-5  # change of the scores, over the largest, for an input changed by one millionth
MILLIONTH = 1e-6
PARTIAL_MOMENTUM = None  # torch's word for a plain average over all batches


@dataclass(frozen=True, slots=True)
class Own:
    """A parameter that a module holds itself."""

    module: nn.Module
    name: str
    value: nn.Parameter


def randomize(module: nn.Module, images: Sequence[Tensor], *, seed: int) -> None:
    """Give every parameter and statistic a value as a trained network might have it, in place.

    Args:
        module: a classifier fresh from its factory.
        images: normalized images (1, C, H, W); batch norms take their statistics from them, and the last linears
            are centred on them, so that the best class depends on the image.
        seed: of every draw; the same seed and library versions give the same weights.
    """
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for own in list(_parameters(module)):
            own.value.copy_(_value(own, rng))
        for smallest in SMALLEST_VARIANCES:
            _measure_batch_norms(module, images, smallest)
            for norm in _batch_norms(module):
                norm.running_mean.add_(_normal(norm.running_mean.shape, rng) * 0.1 * norm.running_var.sqrt())
                norm.running_var.mul_(_uniform(norm.running_var.shape, rng, 0.8, 1.25))
            _centre_heads(module, images)
            if sensitivity(module, images) <= STEADY:
                break
    module.eval()


def sensitivity(module: nn.Module, images: Sequence[Tensor]) -> float:
    """Change of the scores, over the largest of them, for inputs changed by one millionth."""
    x = torch.cat(list(images))
    with torch.no_grad():
        wanted, changed = module(x), module(x * (1 + MILLIONTH))
    return relative_error(changed.numpy(), wanted.numpy())


def silent(module: nn.Module) -> list[str]:
    """Names of parameters under which a branch does nothing: factors and weights that are zero or nearly so."""
    return [
        f"{path}.{own.name}".lstrip(".")
        for path, part in module.named_modules()
        for own in _own(part)
        if _is_silent(own)
    ]


def _value(own: Own, rng: torch.Generator) -> Tensor:
    """A new value of a parameter, by its role."""
    value, kind = own.value, type(own.module).__name__
    if _is_norm(own.module) and value.dim() == 1:
        return _uniform(value.shape, rng, 0.3, 0.9) if own.name == "weight" else _normal(value.shape, rng) * 0.1
    if own.name.endswith("bias") and value.dim() == 1:
        mean = float(value.mean()) if kind == "Linear" else 0.0  # a gate's bias of 1 is meant
        return mean + _normal(value.shape, rng) * 0.05
    if _is_vector(value):
        return _uniform(value.shape, rng, 0.3, 0.9) if _is_silent(own) else value.detach()
    if own.name == "weight" and _is_silent(own):
        value = nn.Parameter(_normal(value.shape, rng) / math.sqrt(_fan_in(value)))
    if own.name == "weight" and _is_depthwise(own.module):
        return _with_sum(value, rng)
    if _is_constant(value):  # tables of position biases, class tokens
        return value.detach() + _normal(value.shape, rng) * 0.2
    return value.detach()


def _is_silent(own: Own) -> bool:
    value = own.value.detach()
    if own.name.endswith("bias"):
        return False
    if _is_vector(value):
        return float(value.abs().mean()) < SMALLEST_VECTOR
    if own.name == "weight":
        return float(value.std()) * math.sqrt(_fan_in(value)) < SMALLEST_GAIN
    return False


def _with_sum(weight: Tensor, rng: torch.Generator) -> Tensor:
    """Filters (C, 1, h, w) that pass what is smooth: one that sums to nothing leaves only rounding errors behind."""
    sign = torch.randint(0, 2, (len(weight), 1, 1, 1), generator=rng) * 2 - 1
    return weight.detach().abs() * sign * _uniform(weight.shape, rng, 0.5, 1.5) + weight.detach() * 0.25


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1 and module.weight.shape[1] == 1


def _is_vector(value: Tensor) -> bool:
    """One factor per channel, whatever axes of one element it has besides: (C,), (C, 1, 1), (1, 1, C)."""
    return value.numel() == max(value.shape, default=1)


def _is_constant(value: Tensor) -> bool:
    return value.numel() > 1 and float(value.std()) < 1e-5


def _fan_in(weight: Tensor) -> int:
    return max(weight[0].numel(), 1)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() or isinstance(module, nn.modules.batchnorm._BatchNorm)


def _parameters(module: nn.Module) -> Iterator[Own]:
    seen: set[int] = set()
    for part in module.modules():
        for own in _own(part):
            if id(own.value) not in seen:
                seen.add(id(own.value))
                yield own


def _own(part: nn.Module) -> Iterator[Own]:
    for name, value in part.named_parameters(recurse=False):
        yield Own(part, name, value)


def _batch_norms(module: nn.Module) -> list[Any]:
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [norm for norm in norms if norm.running_var is not None]


def _measure_batch_norms(module: nn.Module, images: Sequence[Tensor], smallest: float) -> None:
    """Statistics of real activations: with made-up ones signals die or explode within ten layers."""
    module.eval()
    norms = _batch_norms(module)
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = PARTIAL_MOMENTUM
        norm.train()
    if norms:
        module(torch.cat(list(images)))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
        typical = float(norm.running_var.median()) + float(norm.running_mean.square().mean())
        norm.running_var.clamp_min_(max(smallest * typical, 1e-6))


def _centre_heads(module: nn.Module, images: Sequence[Tensor]) -> None:
    """Take from the bias of every last linear its mean score: else one class wins for every image."""
    batch = torch.cat(list(images))
    classes = module(batch).shape[-1]
    heads = [
        m for m in module.modules() if isinstance(m, nn.Linear) and m.out_features == classes and m.bias is not None
    ]
    answers: dict[nn.Linear, Tensor] = {}
    hooks = [h.register_forward_hook(lambda m, _, out: answers.__setitem__(m, out)) for h in heads]
    module(batch)
    for hook in hooks:
        hook.remove()
    for head, out in answers.items():
        head.bias.sub_(out.reshape(-1, classes).mean(0))


def _normal(shape: torch.Size, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng)


def _uniform(shape: torch.Size, rng: torch.Generator, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)
