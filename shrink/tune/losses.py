"""How far the scores of a student are from those of its teacher, and from labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torch.nn import functional

from shrink.tune.settings import Loss, Settings

TINY = 1e-7


def standardized_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened classes, both scores first brought to mean 0 and deviation 1.

    A small student need not reach the size of the teacher's scores, only their relations (Sun et al., "Logit
    standardization in knowledge distillation", CVPR 2024). Of two classes the scores are compared as they are:
    brought to deviation 1 they would say which is larger and nothing else, and no gradient would come of it.

    Args:
        student, teacher: scores, (N, classes).
        temperature: > 0; divides the standardized scores.
    """
    mine, theirs = (functional.log_softmax(_standardized(x) / temperature, dim=1) for x in (student, teacher))
    return functional.kl_div(mine, theirs, reduction="batchmean", log_target=True) * temperature**2


def relations(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """1 - correlation of the softened classes within each image, plus that of each class over the batch.

    Huang et al., "Knowledge distillation from a stronger teacher" (DIST), NeurIPS 2022, equations 6 to 9, with both
    weights 1 and the factor of the squared temperature.
    """
    mine, theirs = (functional.softmax(x / temperature, dim=1) for x in (student, teacher))
    return temperature**2 * (_uncorrelated(mine, theirs) + _uncorrelated(mine.T, theirs.T))


def squared_error(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of the scores, each image's mean taken off: a number added to all changes no answer."""
    mine, theirs = (x - x.mean(1, keepdim=True) for x in (student, teacher))
    return functional.mse_loss(mine, theirs)


LOSSES: Mapping[Loss, Callable[[Tensor, Tensor, float], Tensor]] = {
    "kl": standardized_divergence,
    "dist": relations,
    "mse": squared_error,
}


def token_relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines between the tokens of an image, every pair of them.

    The part within an image of Hao et al., "Learning efficient vision transformers via fine-grained manifold
    distillation", NeurIPS 2022. Cosines say nothing of the number of features, so a narrower student can be told them.

    Args:
        student, teacher: (N, ..., T, C); C may differ.
    """
    mine, theirs = (functional.normalize(x, dim=-1) for x in (student, teacher))
    return functional.mse_loss(mine @ mine.mT, theirs @ theirs.mT)


def objective(
    student: Tensor,
    teacher: Tensor | None,
    shares: Tensor,
    settings: Settings,
    weights: Tensor | None,
    tokens: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """What a training makes small.

    Args:
        student: scores, (N, classes).
        teacher: scores of the same images; None: only labels count.
        shares: of the classes, (N, classes), rows sum to 1: mixed images belong to two of them.
        weights: (classes,), what a label of each class is worth; None: all the same.
        tokens: of the student and of the teacher, at each place where they are matched.
    """
    share = settings.labels if teacher is not None else 1.0
    total = student.new_zeros(())
    if teacher is not None and share < 1:
        total = total + (1 - share) * LOSSES[settings.loss](student, teacher, settings.temperature)
    if share > 0:
        total = total + share * functional.cross_entropy(student, shares, weight=weights)
    for mine, theirs in tokens:
        total = total + settings.match / len(tokens) * token_relations(mine, theirs)
    return total


def _standardized(scores: Tensor) -> Tensor:
    centred = scores - scores.mean(1, keepdim=True)
    if scores.shape[1] < 3:
        return centred
    return centred / (centred.std(1, keepdim=True) + TINY)


def _uncorrelated(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return 1 - functional.cosine_similarity(a, b, dim=1, eps=TINY).mean()
