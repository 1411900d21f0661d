"""A pruned graph answers what the whole graph answers with the same channels set to zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prune_nets import NETS, graph, images

from shrink.prune.cost import macs, parameters
from shrink.prune.groups import Coupling, find_groups
from shrink.prune.remove import masked, remove


def some(coupling: Coupling, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random choice that leaves one unit of every group."""
    dead = np.zeros(coupling.units, bool)
    for group in coupling.groups:
        dead[rng.permutation(group.units)[: rng.integers(len(group.units))]] = True
    return dead


@pytest.mark.parametrize("name", NETS)
def test_removing_equals_masking(name: str) -> None:
    whole = graph(name)
    coupling = find_groups(whole)

    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        dead = some(coupling, np.random.default_rng(seed))
        small, zeros = remove(whole, coupling, dead), masked(whole, coupling, dead)
        for image in images():
            torch.testing.assert_close(small(image), zeros(image), rtol=1e-4, atol=1e-4)

    check()


EXPECTED = {
    "plain": [("0", 8), ("3", 12), ("5", 8)],
    "residual": [("0", 8), ("3.layers.0", 12)],
    "padded_shortcut": [("0", 8), ("3.layers.0", 8)],
    "dense": [("0", 8), ("3.layers.0", 6), ("3.layers.1", 4)],
    "depthwise": [("0", 8), ("3", 16), ("7", 8)],
    "multiplier": [("0", 8), ("4", 8)],
    "grouped": [("0", 8), ("3", 4), ("3", 4), ("4", 6), ("6", 8)],
    "squeeze_excite": [("0", 8), ("3.layers.0", 4)],
    "attention": [("0", 8), ("3.layers.0", 2), ("3.layers.0", 4), ("3.layers.1", 8)],
    "by_hand": [("0", 8), ("3.layers.0", 2), ("3.layers.0", 4), ("3.layers.0", 4), ("3.layers.1", 8)],
    "mlp": [("3.layers.1", 32)],
    "group_norm": [("0", 4), ("4", 8)],
    "unknown_op": [("3.layers.0", 8)],
}
"""What can go, counted by hand: the first layer that writes the channels, and how many units there are."""


@pytest.mark.parametrize("name", EXPECTED)
def test_groups_are_those_counted_by_hand(name: str) -> None:
    groups = find_groups(graph(name)).groups
    assert sorted((group.name, len(group.units)) for group in groups) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "layer", "why"),
    [
        ("plain", "8", "the model's answers"),
        ("mlp", "0", "layer_norm in 3.layers.0 takes mean and variance over these channels"),
        ("unknown_op", "0", "no rule for flip in 3"),
    ],
)
def test_what_stays_has_its_reason(name: str, layer: str, why: str) -> None:
    assert dict(find_groups(graph(name)).frozen)[layer] == why


def test_a_layer_to_keep_keeps_its_channels() -> None:
    coupling = find_groups(graph("plain"), keep=["3"])
    assert [group.name for group in coupling.groups] == ["0", "5"]
    assert dict(coupling.frozen)["3"] == "asked to be kept"


def test_the_scale_of_attention_stays_that_of_the_full_width() -> None:
    whole = graph("attention")
    coupling = find_groups(whole)
    width = next(group for group in coupling.groups if group.name == "3.layers.0" and len(group.units) == 4)
    dead = np.zeros(coupling.units, bool)
    dead[width.units[:2]] = True
    small = remove(whole, coupling, dead)
    scales = [node.kwargs["scale"] for node in small.graph.nodes if "attention" in str(node.target)]
    assert scales == [0.5]  # 4 ** -0.5, though the width is 2 now


def test_macs_are_those_of_the_formula() -> None:
    whole = graph("plain")
    stem, second, third, head = 16 * 16 * 8 * 27, 14 * 14 * 12 * 72, 14 * 14 * 8 * 12, 8 * 5
    assert macs(whole) == stem + second + third + head
    assert parameters(whole) == 8 * 28 + 12 * 73 + 8 * 13 + 5 * 9


def test_the_original_stays_as_it_was() -> None:
    whole = graph("residual")
    before = whole(images(1)[0])
    coupling = find_groups(whole)
    remove(whole, coupling, some(coupling, np.random.default_rng(0)))
    assert torch.equal(whole(images(1)[0]), before)
