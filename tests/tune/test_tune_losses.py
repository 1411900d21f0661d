"""Losses against their equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from shrink.tune.losses import LOSSES, objective, token_relations
from shrink.tune.settings import Settings

RNG = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (torch.randn(6, 5, generator=RNG) * 3 for _ in range(2))
SHARES = torch.eye(5)[[0, 1, 2, 3, 4, 0]]
SETTINGS = Settings(epochs=1)


def test_kl_is_that_of_standardized_scores() -> None:
    """Sun et al. 2024, equation 10, by scipy."""
    mine, theirs = (
        scipy.special.softmax(scipy.stats.zscore(x.double().numpy(), axis=1, ddof=1) / 2, axis=1)
        for x in (STUDENT, TEACHER)
    )
    wanted = scipy.special.rel_entr(theirs, mine).sum(1).mean() * 2**2
    assert float(LOSSES["kl"](STUDENT, TEACHER, 2.0)) == pytest.approx(wanted, rel=1e-4)


def test_kl_does_not_see_the_size_of_the_scores() -> None:
    assert float(LOSSES["kl"](7 * TEACHER - 3, TEACHER, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(LOSSES["mse"](7 * TEACHER - 3, TEACHER, 2.0)) > 1


def test_dist_is_one_minus_correlations_both_ways() -> None:
    """Huang et al. 2022, equations 6 to 9, by numpy."""
    mine, theirs = (scipy.special.softmax(x.double().numpy() / 4, axis=1) for x in (STUDENT, TEACHER))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(mine, theirs, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(mine.T, theirs.T, strict=True)])
    assert float(LOSSES["dist"](STUDENT, TEACHER, 4.0)) == pytest.approx(4**2 * (inter + intra), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_two_classes_teach_too(name: str) -> None:
    """Two standardized scores are 0.7 and -0.7, whatever they were: their gradient is zero."""
    student = STUDENT[:, :2].clone().requires_grad_()
    LOSSES[name](student, TEACHER[:, :2], 2.0).backward()
    assert student.grad is not None and float(student.grad.abs().sum()) > 0.01


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_that_answers_as_its_teacher_has_no_loss(name: str) -> None:
    assert float(LOSSES[name](TEACHER, TEACHER, 2.0)) == pytest.approx(0, abs=1e-5)
    assert float(LOSSES[name](STUDENT, TEACHER, 2.0)) > 0.01


def test_relations_are_the_cosines_of_all_pairs_of_tokens() -> None:
    """Hao et al. 2022, the part within an image, by numpy; of a narrower student."""
    mine, theirs = torch.randn(2, 4, 3, generator=RNG), torch.randn(2, 4, 7, generator=RNG)

    def cosines(x: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        one = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=-1, keepdims=True)
        return np.einsum("nac,nbc->nab", one, one)

    wanted = ((cosines(mine) - cosines(theirs)) ** 2).mean()
    assert float(token_relations(mine, theirs)) == pytest.approx(wanted, rel=1e-4)


def test_relations_do_not_see_a_rotation_or_the_size_of_the_tokens() -> None:
    theirs = torch.randn(2, 4, 5, generator=RNG)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=RNG)).Q
    assert float(token_relations(3 * theirs @ rotation, theirs)) == pytest.approx(0, abs=1e-9)


def test_matched_tokens_add_their_mean_with_its_weight() -> None:
    pairs = [tuple(torch.randn(6, 4, 5, generator=RNG) for _ in range(2)) for _ in range(3)]
    how = Settings(epochs=1, match=10.0)
    found = float(objective(STUDENT, TEACHER, SHARES, how, None, pairs))  # type: ignore[arg-type]
    wanted = mixed(0.0) + 10 * np.mean([float(token_relations(*pair)) for pair in pairs])
    assert found == pytest.approx(wanted, rel=1e-5)


def mixed(share: float, teacher: Tensor | None = TEACHER) -> float:
    return float(objective(STUDENT, teacher, SHARES, Settings(epochs=1, labels=share), None))


def test_labels_take_their_share() -> None:
    assert mixed(0.3) == pytest.approx(0.7 * mixed(0) + 0.3 * mixed(1), rel=1e-5)
    assert mixed(0, teacher=None) == pytest.approx(mixed(1)), "without a teacher only labels count"


def test_a_rare_class_can_count_as_much_as_the_others() -> None:
    weights = torch.tensor([0.0, 0, 0, 0, 1])
    alone = float(objective(STUDENT[4:5], None, SHARES[4:5], SETTINGS, None))
    # PyTorch divides by the number of images where classes come as shares
    assert float(objective(STUDENT, None, SHARES, SETTINGS, weights)) == pytest.approx(alone / 6, rel=1e-5)
