"""A classifier on given features: the start of a new head, before the whole network is trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # of the penalty on squared weights; few images want a strong one
STEPS = 200


def fit_head(features: Tensor, labels: Tensor, other: tuple[Tensor, Tensor], classes: int) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression.

    Args:
        features: (N, K).
        labels: (N,) int64.
        other: features and labels that choose the penalty.

    Returns:
        weight (classes, K) and bias (classes,), for features as they are.
    """
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    best: tuple[float, Tensor, Tensor] | None = None
    for strength in STRENGTHS:
        weight, bias = _fit((features - mean) / deviation, labels, classes, strength)
        weight, bias = weight / deviation, bias - (weight * (mean / deviation)).sum(1)
        loss = float(functional.cross_entropy(functional.linear(other[0], weight, bias), other[1]))
        if best is None or loss < best[0]:
            best = loss, weight, bias
    assert best is not None
    return best[1], best[2]


def _fit(features: Tensor, labels: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = functional.cross_entropy(functional.linear(features, weight, bias), labels)
        found = found + strength * weight.square().sum() / 2
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
