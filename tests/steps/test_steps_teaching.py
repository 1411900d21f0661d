"""How the words of a recipe become those of the loop."""

from __future__ import annotations

from typing import Any

import pytest

from shrink.recipe import Tune
from shrink.steps.teaching import settings
from shrink.tune.settings import AUGMENTED, LIGHTLY


@pytest.mark.parametrize(
    ("asked", "rounded", "wanted"),
    [
        ({"epochs": 3}, False, LIGHTLY),
        ({"epochs": 40}, False, AUGMENTED),
        ({"epochs": 3, "labels": 0.3}, False, AUGMENTED),
        ({"epochs": 40, "qat": 1}, True, LIGHTLY),
        ({"epochs": 40, "augment": ()}, False, ()),
    ],
)
def test_few_passes_without_labels_mirror_images_alone(
    asked: dict[str, Any], rounded: bool, wanted: tuple[str, ...]
) -> None:
    """Unless the recipe names what it wants; each of the two trainings by its own number of passes."""
    assert settings(Tune(**asked), 0, taught=True, rounded=rounded).augment == wanted


def test_a_new_head_without_a_teacher_learns_from_labels_whatever_their_share_is_said_to_be() -> None:
    assert settings(Tune(epochs=3), 0, taught=False).augment == AUGMENTED


def test_training_with_rounding_has_its_own_passes_and_rate() -> None:
    found = settings(Tune(epochs=3, rate=1e-3, qat=2, qat_rate=1e-6), 7, taught=True, rounded=True)
    assert (found.epochs, found.rate, found.seed) == (2, 1e-6, 7)
