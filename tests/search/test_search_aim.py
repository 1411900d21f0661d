"""The search aims at the least pruning that is small and fast enough: on made-up models whose times are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrink.search.aim import aims
from shrink.search.goal import Goal
from shrink.search.points import Point, Space
from shrink.search.result import Clocked, File, Result
from shrink.search.trials import Entry

SPACE = Space(most_pruned=4.0, resolutions=(28, 20), targets=("a",), own=28, epochs=(0, 1))
GOAL = Goal(max_drop=0.5, faster=2.0, smaller=3.0)


def tried(number: int, point: Point, ratio: float, size_ratio: float = 0.1, lost: int = 0) -> Entry:
    clocked = (Clocked(board="local", median_ms=ratio, ratio=ratio),)
    file = File(
        target="a", sha256="", size_bytes=1, size_ratio=size_ratio, clocked=clocked, images=10_000, lost=lost, won=0
    )  # fmt: skip
    found = Result(files=(file,), macs=1, parameters=1)
    return Entry(number=number, point=point, state="done", result=found, why="", seconds=1.0)


def searched(time_of: Callable[[float], float], trials: int) -> list[float]:
    """The factors that are tried one after the other."""
    entries = [tried(number, point, time_of(point.prune)) for number, point in enumerate(SPACE.starts())]
    for number in range(len(entries), trials):
        for point in aims(GOAL, SPACE, entries):
            entries.append(tried(number, point, time_of(point.prune)))
    return [entry.point.prune for entry in entries]


@given(st.floats(0.6, 1.4), st.floats(0.3, 1.0), st.floats(0.0, 0.2))
def test_it_ends_at_the_least_factor_that_is_fast_enough(first: float, power: float, fixed: float) -> None:
    def time_of(factor: float) -> float:
        return fixed + (first - fixed) * factor**-power

    grid = [round(1 + 0.05 * step, 2) for step in range(61)]
    enough = [factor for factor in grid if time_of(factor) <= 0.5]
    found = searched(time_of, 63)
    if not enough:
        assert found == [1.0, 4.0]  # not even the most pruned one: nothing to aim at
    else:
        assert min(factor for factor in found if time_of(factor) <= 0.5) == enough[0]
        assert len(found) == len(set(found))


def test_the_third_trial_is_near_the_goal_already() -> None:
    assert searched(lambda factor: factor**-0.6, 3) == [1.0, 4.0, pytest.approx(2 ** (1 / 0.6), abs=0.05)]


def test_other_resolutions_and_failed_trials_say_nothing() -> None:
    whole, least = SPACE.starts()
    entries = [tried(0, whole, 1.0), tried(1, least, 0.4)]
    (aim,) = aims(GOAL, SPACE, entries)
    small = Point(prune=2.0, resolution=20, targets="a", epochs=1)
    failed = Entry(number=3, point=SPACE.at(2.0, "a"), state="failed", result=None, why="", seconds=1.0)
    assert list(aims(GOAL, SPACE, [*entries, tried(2, small, 0.4), failed])) == [aim]
    assert list(aims(Goal(max_drop=0.5), SPACE, entries)) == []  # no limit of size or time


def test_what_is_fast_enough_and_loses_too_much_is_trained_for_longer() -> None:
    space = Space(most_pruned=4.0, resolutions=(28,), targets=("a",), own=28, epochs=(0, 2, 5, 9))
    whole, most = space.starts()
    assert (whole.epochs, most.epochs) == (0, 2)
    near = space.at(3.95, "a")
    entries = [tried(0, whole, 1.0), tried(1, near, 0.51), tried(2, most, 0.49, lost=100)]
    for epochs in (5, 9):
        (aim,) = aims(GOAL, space, entries)
        assert aim == Point(prune=4.0, resolution=28, targets="a", epochs=epochs)
        assert list(aims(GOAL, space, [*entries, tried(len(entries), aim, 0.49)])) == []  # it is the winner
        entries.append(tried(len(entries), aim, 0.49, lost=80))
    assert list(aims(GOAL, space, entries)) == []  # trained for as long as is allowed
