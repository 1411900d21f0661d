"""Drops per group: counts by hand, and the correction for many tests against the closed test it abbreviates."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from shrink.verify.groups import by_group, holm


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]):
    """A test stands if every set of tests with it stands: Marcus, Peritz and Gabriel (1976)."""
    found = holm(p_values)
    for i, p in enumerate(found):
        others = [j for j in range(len(p_values)) if j != i]
        sets = [(i, *more) for k in range(len(p_values)) for more in combinations(others, k)]
        closed = max(min(1.0, len(one) * min(p_values[j] for j in one)) for one in sets)
        assert p == pytest.approx(closed)


def test_a_family_without_a_real_drop_seldom_alarms():
    """1000 families of 20 groups where a flip is as likely lost as won: at most 5 % have any alarm."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(1000):
        lost = rng.binomial(30, 0.5, 20)
        alarms += min(holm([binomtest(int(k), 30).pvalue for k in lost])) < 0.05
    assert alarms / 1000 <= 0.05


def test_counts_and_drops_by_hand():
    before = np.array([1, 1, 1, 1, 0, 0, 1, 1], bool)
    now = np.array([0, 0, 1, 1, 1, 0, 1, 1], bool)
    worst, other = by_group(before, now, np.array([5, 5, 5, 2, 2, 2, 5, 2]))
    assert (worst.group, worst.images, worst.lost, worst.won, worst.drop) == (5, 4, 2, 0, 0.5)
    assert (worst.top1_before, worst.top1_now) == (1.0, 0.5)
    assert (other.group, other.images, other.lost, other.won, other.drop) == (2, 4, 0, 1, -0.25)
    assert worst.p_value == binomtest(2, 2).pvalue and worst.p_holm == min(1.0, 2 * worst.p_value)
    assert worst.low < worst.drop < worst.high


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60))
def test_the_groups_add_up_to_the_whole(rows: list[tuple[bool, bool, int]]):
    before, now, group = (np.array(column) for column in zip(*rows, strict=True))
    found = by_group(before, now, group)
    assert sum(one.images for one in found) == len(rows)
    assert sum(one.lost for one in found) == int((before & ~now).sum())
    assert sum(one.won for one in found) == int((now & ~before).sum())
    assert [one.drop for one in found] == sorted((one.drop for one in found), reverse=True)
