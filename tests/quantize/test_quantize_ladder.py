"""Which rungs are kept, where the error of every way is known, and where another file went one of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from quantize_graphs import ONNX, SHAPE, TOKENS, graph_of, images
from torch import Tensor, nn

from shrink import quantize
from shrink.quantize.ladder import NEARLY, climb
from shrink.quantize.rungs import EFFORTS

Ways = dict[str, float]


class Judge:
    """Takes a state for its error."""

    def error(self, state: float) -> float:
        return state


def climbed(starts: Ways, *rungs: Ways, like: Collection[str] | None = None) -> tuple[float, list[str]]:
    """The error at the end, and what was kept."""

    def maker(ways: Ways) -> Callable[[Any, Any], Any]:
        return lambda state, tools: iter(ways.items())

    given: Any = starts
    judge: Any = Judge()
    end, taken = climb(given, map(maker, rungs), judge, like=like)
    error: Any = end
    return error, [rung.what for rung in taken if rung.kept]


def test_the_smallest_error_of_a_rung_is_kept_and_nothing_that_is_worse() -> None:
    ways = ({"a": 0.5, "b": 0.4}, {"c": 0.45}, {}, {"d": 0.4})
    assert climbed({"start": 1.0}, *ways) == (0.4, ["start", "b"])


@pytest.mark.parametrize(("slow", "kept"), [(0.81, "fast"), (0.79, "slow")])
def test_a_slower_start_must_be_clearly_closer(slow: float, kept: str) -> None:
    assert climbed({"fast": 1.0, "slow": slow})[1] == [kept]


@pytest.mark.parametrize(("large", "kept"), [(0.98, "fast"), (0.96, "large")])
def test_a_larger_start_must_be_closer_but_not_by_as_much(large: float, kept: str) -> None:
    given: Any = {"fast": 1.0, "slow": 0.9, "large": large}
    judge: Any = Judge()
    _, taken = climb(given, [], judge, larger=["large"])
    assert {rung.what: rung.kept for rung in taken} == {what: what == kept for what in given}
    assert [bool(rung.why) for rung in taken] == [False, True, kept == "fast"]


def test_of_ways_that_are_as_good_the_one_of_the_other_file_is_kept() -> None:
    start, rungs = {"start": 1.0}, ({"a": 0.50, "b": 0.54}, {"c": 0.52})
    assert climbed(start, *rungs) == (0.50, ["start", "a"])
    assert climbed(start, *rungs, like={"start", "b"}) == (0.54, ["start", "b"])
    assert climbed(start, *rungs, like={"start", "b", "c"}) == (0.52, ["start", "b", "c"])


def test_a_rung_that_the_other_file_did_not_keep_must_be_clearly_closer() -> None:
    assert climbed({"start": 1.0}, {"a": 0.95}) == (0.95, ["start", "a"])
    assert climbed({"start": 1.0}, {"a": 0.95}, like={"start"}) == (1.0, ["start"])
    assert climbed({"start": 1.0}, {"a": 0.5}, like={"start"}) == (0.5, ["start", "a"])


def test_the_other_file_is_not_followed_where_it_is_clearly_farther() -> None:
    assert climbed({"start": 1.0}, {"a": 0.5, "b": 0.6}, like={"start", "b"}) == (0.5, ["start", "a"])


def test_what_was_decided_by_the_other_file_says_so() -> None:
    given: Any = {"start": 1.0}
    judge: Any = Judge()
    ways: list[Any] = [lambda state, tools: iter([("a", 0.50), ("b", 0.54), ("c", 0.56)])]
    _, taken = climb(given, ways, judge, like={"b"})
    assert [(rung.what, rung.kept, bool(rung.why)) for rung in taken] == [
        ("start", True, False), ("a", False, True), ("b", True, True), ("c", False, False)
    ]  # fmt: skip


def chosen(net: nn.Module, shape: tuple[int, ...], *, like: quantize.Chosen | None = None) -> quantize.Chosen:
    graph = graph_of(net, shape)
    scale = ((0.5,) * 4, (0.25,) * 4)
    observed = quantize.observe(graph, [ONNX], images(32, shape, seed=4), normalization=scale)
    return quantize.choose(graph, observed, ONNX, images(8, shape, seed=9), like=like)


def test_a_file_that_rounds_as_another_keeps_what_that_kept_unless_it_is_clearly_farther() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 6, 1))
    alone = chosen(net, SHAPE)
    assert sum(rung.kept for rung in alone.rungs) > 1
    other = replace(alone, rungs=alone.rungs[:1])  # as if the other file kept none
    kept = [rung for rung in chosen(net, SHAPE, like=other).rungs if rung.kept]
    assert all(after.error * NEARLY < before.error for before, after in itertools.pairwise(kept))
    assert len(kept) < sum(rung.kept for rung in alone.rungs)


def test_a_file_with_ranges_of_the_run_time_goes_its_own_way() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
    alone = chosen(net, TOKENS)
    assert alone.state.scheme.dynamic and sum(rung.kept for rung in alone.rungs) > 1
    assert chosen(net, TOKENS, like=replace(alone, rungs=alone.rungs[:1])).rungs == alone.rungs


class Positions(nn.Module):
    """Tokens with positions between two linears."""

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.table = nn.Parameter(0.05 * torch.randn(1, 64, 8))
        self.table.data[0, torch.arange(64), torch.arange(64) % 8] = largest  # in every row and column

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.nn.functional.gelu(self.first(x) + self.table))


@pytest.mark.parametrize(("largest", "tables"), [(0.05, 1), (-3000.0, 0)])
def test_a_table_takes_8_bits_unless_it_is_clearly_closer_in_float(largest: float, tables: int) -> None:
    torch.manual_seed(0)
    found = chosen(Positions(largest), (1, 64, 8))
    kept = {rung.what: rung.kept for rung in found.rungs}
    start = "dynamic ranges next to float ops"
    assert (kept[start], kept[f"{start}, tables in float"]) == (tables == 1, tables == 0)
    assert found.state.tables == tables and any("8 bits: 1" in line for line in found.changes) == bool(tables)


def test_progress_is_told_after_every_rung() -> None:
    graph, seen = graph_of(nn.Sequential(nn.Conv2d(4, 6, 1)), SHAPE), list[Any]()

    def track(rungs: Sequence[Any]) -> Iterator[Any]:
        for rung in rungs:
            yield rung
            seen.append(rung)

    observed = quantize.observe(graph, [ONNX], images(8, SHAPE, seed=4), normalization=((0.5,) * 4, (0.25,) * 4))
    quantize.choose(graph, observed, ONNX, images(4, SHAPE, seed=9), effort="balanced", track=track)
    assert seen == list(EFFORTS["balanced"])
