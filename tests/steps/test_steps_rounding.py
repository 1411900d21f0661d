"""Who decides whether training with the rounding in it is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from shrink.recipe import Tune
from shrink.steps.rounding import _alone


@pytest.mark.parametrize(
    ("asked", "judged", "ladders", "wanted"),
    [
        ({}, 1024, 128, "1,024 images"),
        ({}, 128, 128, ""),
        ({}, 40, 128, ""),
        ({"labels": 0.3}, 40, 128, "labels"),
        ({"teacher": "timm:resnet18"}, 40, 128, "another model"),
    ],
)
def test_the_loss_decides_alone_only_where_it_knows_more(
    asked: dict[str, Any], judged: int, ladders: int, wanted: str
) -> None:
    lesson = SimpleNamespace(held_out=SimpleNamespace(pixels=[None] * judged))
    chosen = SimpleNamespace(tools=SimpleNamespace(held_out=[None] * ladders))
    reason = _alone(Tune(qat=1, **asked), cast(Any, lesson), cast(Any, chosen))
    assert wanted in reason and bool(reason) == bool(wanted)
