"""The search aims at the least pruning that is small and fast enough: on made-up models whose times are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrink.search.aim import OFF, aims, to_sketch
from shrink.search.goal import Figures, Goal
from shrink.search.points import Point, Space
from shrink.search.result import Clocked, File, Result
from shrink.search.trials import Entry

SPACE = Space(most_pruned=4.0, resolutions=(28, 20), targets=("a",), own=28, epochs=(0, 1))
GOAL = Goal(max_drop=0.5, faster=2.0, smaller=3.0)
GRID = [round(1 + 0.05 * step, 2) for step in range(61)]

TimeOf = Callable[[float], float]


def sketch(ratio: float) -> Figures:
    return Figures(size_mb=0.1, size_ratio=0.1, latency_ms=ratio, latency_ratio=ratio)


def tried(number: int, point: Point, ratio: float, size_ratio: float = 0.1, lost: int = 0) -> Entry:
    clocked = (Clocked(board="local", median_ms=ratio, ratio=ratio),)
    file = File(
        target="a", sha256="", size_bytes=1, size_ratio=size_ratio, clocked=clocked, images=10_000, lost=lost, won=0
    )  # fmt: skip
    found = Result(files=(file,), macs=1, parameters=1)
    return Entry(number=number, point=point, state="done", result=found, why="", seconds=1.0)


def sketched(time_of: TimeOf, entries: list[Entry], goal: Goal = GOAL) -> dict[Point, Figures]:
    """All that is asked for, in order."""
    known: dict[Point, Figures] = {}
    while (point := to_sketch(goal, SPACE, entries, known)) is not None:
        assert point not in known
        known[point] = sketch(time_of(point.prune))
    return known


@given(st.floats(0.6, 1.4), st.floats(0.3, 1.0), st.floats(0.0, 0.2))
def test_the_first_that_is_trained_is_the_least_factor_that_is_fast_enough(
    first: float, power: float, fixed: float
) -> None:
    def time_of(factor: float) -> float:
        return fixed + (first - fixed) * factor**-power

    enough = [factor for factor in GRID if time_of(factor) * (1 + OFF) <= 0.5]
    known = sketched(time_of, [])
    (aim,) = aims(GOAL, SPACE, [], known)
    assert aim == SPACE.at(enough[0] if enough else 4.0, "a")  # or the one that comes nearest
    assert len(known) == 2 if not enough else len(known) <= 12


def test_a_few_sketches_do() -> None:
    factors = [point.prune for point in sketched(lambda factor: factor**-0.6, [])]
    assert factors[:3] == [1.0, 4.0, pytest.approx((2 * (1 + OFF)) ** (1 / 0.6), abs=0.05)]
    assert len(factors) <= 5


def test_trials_know_better_than_sketches() -> None:
    known = sketched(lambda factor: factor**-1, [])
    (aim,) = aims(GOAL, SPACE, [], known)
    assert aim.prune == 2.1  # 2.05 would only just do
    entries = [tried(0, aim, 0.51)]  # it was slower than its sketch
    assert to_sketch(GOAL, SPACE, entries, known) is not None
    known |= sketched(lambda factor: 1.05 / factor, entries)
    (aim,) = aims(GOAL, SPACE, entries, known)
    assert aim.prune == 2.2


def test_other_resolutions_and_failed_trials_say_nothing() -> None:
    known = {SPACE.at(1.0, "a"): sketch(1.0), SPACE.at(4.0, "a"): sketch(0.4)}
    wanted, aim = to_sketch(GOAL, SPACE, [], known), list(aims(GOAL, SPACE, [], known))
    small = Point(prune=2.0, resolution=20, targets="a", epochs=1)
    failed = Entry(number=3, point=SPACE.at(2.0, "a"), state="failed", result=None, why="", seconds=1.0)
    entries = [tried(2, small, 0.4), failed]
    assert (to_sketch(GOAL, SPACE, entries, known), list(aims(GOAL, SPACE, entries, known))) == (wanted, aim)


def test_without_a_limit_of_size_or_time_both_ends_are_tried() -> None:
    goal = Goal(max_drop=0.5)
    known = sketched(lambda factor: 1 / factor, [], goal)
    assert list(known) == [SPACE.at(1.0, "a")]
    assert list(aims(goal, SPACE, [], known)) == [SPACE.at(4.0, "a")]


def test_what_cannot_be_made_is_asked_for_once() -> None:
    known = {SPACE.at(1.0, "a"): sketch(1.0), SPACE.at(4.0, "a"): Figures()}
    assert to_sketch(GOAL, SPACE, [], known) is None
    assert list(aims(GOAL, SPACE, [], known)) == [SPACE.at(4.0, "a")]  # its trial says why


def test_what_is_fast_enough_and_loses_too_much_is_trained_for_longer() -> None:
    space = Space(most_pruned=4.0, resolutions=(28,), targets=("a",), own=28, epochs=(0, 2, 5, 9))
    most = space.at(4.0, "a")
    known = {space.at(1.0, "a"): sketch(1.0), space.at(3.95, "a"): sketch(0.51), most: sketch(0.49)}
    assert list(aims(GOAL, space, [], known)) == [most] and most.epochs == 2
    entries = [tried(0, most, 0.49, lost=100)]
    for epochs in (5, 9):
        again, aim = aims(GOAL, space, entries, known)
        assert (again, aim) == (most, Point(prune=4.0, resolution=28, targets="a", epochs=epochs))
        assert list(aims(GOAL, space, [*entries, tried(len(entries), aim, 0.49)], known)) == [most]  # it is the winner
        entries.append(tried(len(entries), aim, 0.49, lost=80))
    assert list(aims(GOAL, space, entries, known)) == [most]  # trained for as long as is allowed
