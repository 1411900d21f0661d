"""The search for a share of the multiply-accumulates whose file is fast enough, on machines made of an equation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shrink.steps.hastening import CLOSE, TRIES, search

MACHINES: dict[str, Callable[[float], float]] = {
    "even": lambda share: share,
    "half of the time is no multiplication": lambda share: 0.5 + 0.5 * share,
    "steps of the kernels": lambda share: 0.2 + 0.8 * round(share * 16) / 16,
    "slow at first": lambda share: share**0.5,
    "fast at first": lambda share: share**2,
    "as slow as the whole until a third is gone": lambda share: 1.02 if share > 0.66 else 0.7,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("goal", [0.75, 0.9])
def test_a_goal_within_reach_is_met_and_not_by_far(machine: str, goal: float) -> None:
    tried = search(goal, MACHINES[machine], 0.1)
    assert len(tried) <= TRIES and all(time == MACHINES[machine](share) for share, time in tried.items())
    share = max(share for share, time in tried.items() if time <= goal)
    if machine not in ("steps of the kernels", "as slow as the whole until a third is gone"):
        assert tried[share] >= goal - CLOSE


def test_a_goal_out_of_reach_ends_at_the_smallest_share() -> None:
    tried = search(0.3, lambda share: 0.5 + 0.5 * share, 0.25)
    assert min(tried) == 0.25 and min(tried.values()) == 0.625


def test_a_smaller_file_that_is_slower_does_not_end_the_search() -> None:
    """Odd sizes can cost more than what went."""
    tried = search(0.8, lambda share: 1.3 if share > 0.7 else 0.6, 0.1)
    assert any(time <= 0.8 for time in tried.values())
