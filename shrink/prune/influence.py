"""How much the answers depend on each place of a value: where a fit should be exact, and where it need not be.

A token that the classifier hardly reads, or a corner of a feature map, counts in a least-squares fit as much as any
other place unless it is told. The measure is the Fisher information of the answers about a place's values: the mean
square of the gradient of the log-likelihood of answers drawn from the model itself (Martens, "New insights and
perspectives on the natural gradient method", 2020; as weights of a fit: Hsu et al., "FWSVD", 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, fx

from shrink.graph.batch import batched_parts
from shrink.graph.edit import telling
from shrink.prune.moments import output_rows

DRAWS = 2  # of answers per image
EVEN = 0.5  # share of the weight that all places have alike: what few images do not show may matter all the same


class Reference:
    """What fits compare with: the whole graph on some images. Fits of several smaller graphs may share one.

    Attributes:
        whole: not changed.
        images: (N, C, H, W).
        per_image: places of each image that enter a fit, as in `moments.output_rows`.
    """

    def __init__(self, whole: fx.GraphModule, images: Tensor, *, batch: int, per_image: int) -> None:
        """`batch`: images at once; all values that are asked for are held for so many."""
        self.whole, self.images, self.per_image = whole, images, per_image
        self._batch = batch
        self._known: dict[str, Tensor] = {}

    def influence(self, values: Mapping[str, fx.Node]) -> Mapping[str, Tensor]:
        """Weights of rows in a fit, by the name of the value, (N, places), mean 1; each is computed once.

        Args:
            values: name of a node of the whole graph -> a layer whose outputs lie as its values do.
        """
        new = {name: layer for name, layer in values.items() if name not in self._known}
        if new:
            self._known |= self._look(new)
        return {name: self._known[name] for name in values}

    def _look(self, values: Mapping[str, fx.Node]) -> dict[str, Tensor]:
        told = batched_parts(telling(self.whole, tuple(values)))
        random = torch.Generator().manual_seed(0)
        found: dict[str, list[Tensor]] = {name: [] for name in values}
        for x in torch.split(self.images, self._batch):
            for (name, layer), squares in zip(values.items(), _squares(told, x, random), strict=True):
                found[name].append(output_rows(layer, squares, self.per_image).sum(1).reshape(len(x), -1))
        return {name: _weights(torch.cat(parts)) for name, parts in found.items()}


def _weights(information: Tensor) -> Tensor:
    mean = information.mean()
    return EVEN + (1 - EVEN) * information / mean if mean > 0 else torch.ones_like(information)


def _squares(told: Callable[[Tensor], list[Tensor]], images: Tensor, random: torch.Generator) -> list[Tensor]:
    """Mean squares of the gradients, each like its value."""
    with torch.enable_grad():
        scores, *values = told(images.clone().requires_grad_())
    chances = scores.detach().softmax(1)
    total = [torch.zeros_like(value) for value in values]
    for draw in range(DRAWS):
        # One draw of a Gaussian with the covariance of the gradient over drawn answers, diag(p) - p p'.
        noise = torch.randn(chances.shape, generator=random) * chances.sqrt()
        direction = noise - chances * noise.sum(1, keepdim=True)
        last = draw == DRAWS - 1
        gradients = torch.autograd.grad(scores, values, direction, retain_graph=not last, allow_unused=True)
        for sum_, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                sum_ += gradient.square()
    return total
