"""The weight of a place in a fit is the Fisher information that the answers have about it."""

from __future__ import annotations

import numpy as np
import torch
from prune_nets import SHAPE
from torch import Tensor, nn

from shrink.graph.batch import batched
from shrink.graph.capture import capture
from shrink.prune.choose import Choice
from shrink.prune.groups import find_groups
from shrink.prune.influence import EVEN, Reference
from shrink.prune.moments import fits
from shrink.prune.remove import remove
from shrink.prune.repair import repair


class FirstRow(nn.Module):
    """Two pointwise convolutions of which the answers read the first row alone."""

    def __init__(self, wide: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, wide, 1), nn.Conv2d(wide, 4, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 5)."""
        return self.head(self.second(self.first(x).relu())[:, :, 0].mean(-1))


def test_it_is_the_information_by_its_formula() -> None:
    model = FirstRow().requires_grad_(False)
    whole = capture(model, SHAPE)
    layer = next(node for node in whole.graph.nodes if fits(node) and node.meta["layer"] == "second")
    height, width = SHAPE[2:]
    image = torch.randn(1, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    reference = Reference(whole, image.expand(2048, -1, -1, -1), batch=512, per_image=height * width)
    (found,) = reference.influence({layer.name: layer}).values()
    assert found.shape == (2048, height * width)
    weights = found.mean(0).reshape(height, width)

    chances = model(image)[0].softmax(0)
    fisher = torch.diag(chances) - torch.outer(chances, chances)
    traces = torch.zeros(height, width)
    traces[0] = torch.trace(model.head.weight.T @ fisher @ model.head.weight) / width**2
    torch.testing.assert_close(weights, EVEN + (1 - EVEN) * traces / traces.mean(), rtol=0.1, atol=1e-6)


def test_places_that_the_answers_read_are_fitted_best() -> None:
    """Below the first row the images are other ones, of which a fit of all places alike would be full."""
    model = FirstRow().requires_grad_(False)
    whole = capture(model, SHAPE)
    coupling = find_groups(whole)
    group = next(group for group in coupling.groups if group.name == "first")
    dead = np.zeros(coupling.units, bool)
    dead[group.units[:4]] = True

    def pictures(seed: int) -> Tensor:
        images = torch.randn(64, *SHAPE[1:], generator=torch.Generator().manual_seed(seed))
        return torch.cat([images[:, :, :1], 3 * images[:, :, 1:].flip(1).abs()], 2)

    errors = []
    for even in (False, True):
        small = remove(whole, coupling, dead)
        given = capture(_Everywhere(model).requires_grad_(False), SHAPE) if even else whole
        reference = Reference(given, pictures(1), batch=64, per_image=10_000)
        repair(reference, small, coupling, Choice(dead, (), 0))
        test = pictures(2)
        errors.append(float((batched(small)(test) - batched(whole)(test)).square().mean()))
    assert errors[0] < 0.7 * errors[1]


class _Everywhere(nn.Module):
    """The same layers, of which all places are read alike."""

    def __init__(self, model: FirstRow) -> None:
        super().__init__()
        self.first, self.second, self.head = model.first, model.second, model.head

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 5)."""
        return self.head(self.second(self.first(x).relu()).mean((2, 3)))


def test_it_is_computed_once_for_each_value_and_the_same_whenever_that_is() -> None:
    whole = capture(FirstRow().requires_grad_(False), SHAPE)
    layers = {node.name: node for node in whole.graph.nodes if fits(node)}
    images = torch.randn(8, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    first, *_, last = layers
    one, other = (Reference(whole, images, batch=4, per_image=100) for _ in range(2))
    few = one.influence({first: layers[first]})
    both, at_once = (reference.influence({n: layers[n] for n in (first, last)}) for reference in (one, other))
    assert both[first] is few[first]
    for name in (first, last):
        torch.testing.assert_close(both[name], at_once[name])
