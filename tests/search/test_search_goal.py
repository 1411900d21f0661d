"""Limits, and what is on the front."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_worker import result

from shrink.errors import RecipeError
from shrink.search.front import closest, front, unseen, winner
from shrink.search.goal import Figures, Goal
from shrink.search.points import Point, Space
from shrink.search.result import Clocked, File, Result
from shrink.search.trials import Entry

FIGURES = Figures(drop=0.4, drop_likely=0.5, size_mb=2.0, size_ratio=0.5, latency_ms=10.0, latency_ratio=0.25)


@pytest.mark.parametrize(
    ("limit", "gap"),
    [
        ({"max_drop": 1.0}, 0.0),
        ({"max_drop": 0.25}, 1.0),
        ({"max_drop": 0.0}, 5.0),
        ({"max_drop": 1.0, "size_mb": 2.0}, 0.0),
        ({"max_drop": 1.0, "size_mb": 1.0}, 1.0),
        ({"max_drop": 1.0, "latency_ms": 8.0}, 0.25),
        ({"max_drop": 1.0, "smaller": 2.0}, 0.0),
        ({"max_drop": 1.0, "smaller": 3.0}, 0.5),
        ({"max_drop": 1.0, "faster": 4.0}, 0.0),
        ({"max_drop": 1.0, "faster": 6.0, "size_mb": 1.6}, 0.75),
    ],
)
def test_what_is_missed_is_a_share_of_the_limit(limit: dict[str, float], gap: float) -> None:
    assert Goal(**limit).gap(FIGURES) == pytest.approx(gap)


def test_what_is_not_known_misses_nothing() -> None:
    assert Goal(max_drop=0.1, size_mb=1.0, latency_ms=1.0, smaller=9.0, faster=9.0).gap(Figures()) == 0


@pytest.mark.parametrize(
    "wrong", [{"max_drop": -1.0}, {"size_mb": 0.0}, {"latency_ms": -2.0}, {"faster": float("inf")}]
)
def test_a_limit_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=f"{next(iter(wrong))} is "):
        Goal(**wrong)


def entry(number: int, size: int, ms: float, lost: int) -> Entry:
    clocked = (Clocked(board="local", median_ms=ms, ratio=ms / 9),)
    file = File(
        target="a", sha256="", size_bytes=size, size_ratio=size / 9, clocked=clocked, images=100, lost=lost, won=0
    )
    point = Point(prune=1.0, resolution=8, targets="a")
    done = Result(files=(file,), macs=1, parameters=1)
    return Entry(number=number, point=point, state="done", result=done, why="", seconds=1.0)


small = st.integers(1, 4)


@given(st.lists(st.tuples(small, small, small), min_size=1, max_size=12))
def test_the_front_is_what_no_other_trial_beats(found: list[tuple[int, int, int]]) -> None:
    entries = [entry(number, size, float(ms), lost) for number, (size, ms, lost) in enumerate(found)]
    beaten = {
        i for i, a in enumerate(found) for b in found if a != b and all(y <= x for x, y in zip(a, b, strict=True))
    }
    assert {e.number for e in front(entries)} == set(range(len(found))) - beaten


@given(st.lists(st.tuples(small, small, small), min_size=1, max_size=12), small)
def test_the_winner_keeps_the_limits_at_the_least_cost_and_is_on_the_front(
    found: list[tuple[int, int, int]], most: int
) -> None:
    entries = [entry(number, size, float(ms), lost) for number, (size, ms, lost) in enumerate(found)]
    goal = Goal(max_drop=100, latency_ms=most)
    best, kept = winner(goal, entries), [one for one in found if one[1] <= most]
    assert (best is None) == (not kept)
    if best is not None:
        assert best in front(entries)
        assert found[best.number][0] * found[best.number][1] == min(size * ms for size, ms, _ in kept)
    else:
        near = closest(goal, entries)
        assert near is not None and found[near.number][1] == min(ms for _, ms, _ in found)


def test_a_space_begins_with_the_whole_model() -> None:
    space = Space(most_pruned=1.3, resolutions=(28, 24), targets=("a", "b"), own=28, epochs=(0, 2))
    assert [str(point) for point in space.starts()] == [
        "whole, 28 px, a",
        "whole, 28 px, b",
    ]
    every = list(space.every())
    assert len(set(every)) == len(every) == 2 * 2 + 6 * 2 * 2 * 2  # a whole model is not trained
    assert set(space.starts()) <= set(every)


def test_a_space_of_whole_models_begins_with_them() -> None:
    space = Space(most_pruned=1.0, resolutions=(28,), targets=("a",), own=28)
    assert list(space.starts()) == list(space.every())


def test_the_worst_file_counts() -> None:
    whole = result(Point(prune=1.0, resolution=20, targets="a")).files[0]
    half = result(Point(prune=2.0, resolution=20, targets="b")).files[0]
    figures = Result(files=(whole, half), macs=1, parameters=1).figures
    assert figures.size_mb == 1.0 and figures.latency_ms == 2.0  # of the whole one
    assert figures.drop == pytest.approx(0.6) and figures.drop_likely > 0.6  # type: ignore[operator]


def test_what_other_images_say_is_what_is_left_of_all() -> None:
    """Of 1,000 images 10 are lost and 4 won; the search looked at 100 and saw 6 lost: 4 lost and 4 won of 900."""
    accuracy = SimpleNamespace(flips_lost=10, flips_won=4, images=1000)
    report: Any = SimpleNamespace(artifacts=[SimpleNamespace(target="a", accuracy=accuracy)])
    best = entry(7, 1, 1.0, 6)
    (same,) = unseen(best, report, {"a": ""})
    assert same.startswith("a: the very file of trial 7; on the 900 images") and "loses 0.00 points" in same
    (other,) = unseen(best, report, {"a": "f" * 64})
    assert other.startswith("a: not the bytes that trial 7 judged (SHA-256 ffffffffffff, not )")
    assert list(unseen(best, report, {})) == []  # its verdict was "fail": no bundle is there
