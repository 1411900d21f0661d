"""Whole residual blocks go where that is the better deal; what is left makes up for it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from prune_nets import SHAPE, Function, graph, net, residual
from torch import Tensor, fx, nn

from shrink import prune
from shrink.graph.batch import batched
from shrink.graph.capture import capture
from shrink.graph.edit import copied
from shrink.prune import imitate
from shrink.prune.blocks import Block, costs_at_the_answers, drop_blocks, find_blocks, private
from shrink.prune.budget import Budget
from shrink.prune.choose import Candidates, Choice, choose
from shrink.prune.cost import macs, parameters
from shrink.prune.cutting import cut, without
from shrink.prune.groups import find_groups, weighted
from shrink.prune.influence import Reference
from shrink.prune.ranking import Ranked
from shrink.prune.repair import repair
from shrink.prune.scores import curves_of, magnitude
from shrink.steps.pruning import table


def pictures(count: int = 32) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(3))


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


@cache
def tower(*, silent: bool = False) -> fx.GraphModule:
    """Three residual blocks; if `silent`, the branch of the last says the same about every image. Not to be changed."""
    torch.manual_seed(0)
    module = net(*(Function(residual, conv(8, 12), conv(12, 8)) for _ in range(3)))
    with torch.no_grad():
        module.get_parameter("5.layers.1.weight").mul_(0 if silent else 1)
        module.get_parameter("5.layers.1.bias").add_(1)
        module.get_parameter("8.weight").mul_(30)
    return capture(module.requires_grad_(False), SHAPE)


def zeroed(whole: fx.GraphModule, block: Block) -> Tensor:
    """Answers with zeros in place of a branch."""
    interpreter = fx.Interpreter(whole)
    node = next(node for node in whole.graph.nodes if node.name == block.last)
    run_node = interpreter.run_node
    interpreter.run_node = lambda n: run_node(n) * 0 if n is node else run_node(n)  # type: ignore[method-assign]
    return interpreter.run(pictures(1))


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("residual", ["3.layers"]), ("mlp", ["3.layers"]), ("plain", []), ("padded_shortcut", []), ("dense", [])],
)
def test_blocks_are_branches_beside_a_shortcut(name: str, blocks: list[str]) -> None:
    assert [block.name for block in find_blocks(graph(name))] == blocks


def test_a_kept_layer_keeps_its_block() -> None:
    assert [block.name for block in find_blocks(tower(), keep=["4.layers.0"])] == ["3.layers", "5.layers"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_dropped_block_is_a_branch_of_zeros(which: int) -> None:
    whole, small = tower(), copied(tower())
    block = find_blocks(whole)[which]
    drop_blocks(small, [block])
    torch.testing.assert_close(small(pictures(1)), zeroed(whole, block))
    layers = {node.meta.get("layer", "") for node in small.graph.nodes if node.op == "call_function"}
    assert not any(layer.startswith(block.name) and layer != block.name for layer in layers)


def test_all_blocks_can_go() -> None:
    small = copied(tower())
    drop_blocks(small, find_blocks(small))
    assert [node.meta["layer"] for node in weighted(small)] == ["0", "8"]


def test_the_budget_foretells_what_dropping_gives() -> None:
    whole = tower()
    coupling = find_groups(whole)
    for block in find_blocks(whole):
        small = copied(whole)
        drop_blocks(small, [block])
        nothing = np.zeros(len(coupling.groups), np.int64)
        assert Budget(whole, coupling, "macs").cost(nothing, block.inside) == macs(small)
        assert Budget(whole, coupling, "parameters").cost(nothing, block.inside) == parameters(small)


def test_the_hidden_channels_of_a_block_are_its_own() -> None:
    whole = tower()
    groups = find_groups(whole).groups
    assert [[g.name for g in private(groups, whole, block)] for block in find_blocks(whole)] == [
        ["3.layers.0"],
        ["4.layers.0"],
        ["5.layers.0"],
    ]


def test_a_branch_that_always_says_the_same_costs_nothing() -> None:
    whole = tower(silent=True)
    costs = costs_at_the_answers(whole, find_blocks(whole), pictures())
    first, second, silent = costs.values()
    assert silent < 1e-6 < 1e-4 < min(first, second)


def ranked(whole: fx.GraphModule, costs: list[float]) -> Ranked:
    coupling = find_groups(whole)
    curves = curves_of(magnitude(whole, coupling), "global")
    return Ranked(whole, coupling, Candidates(curves, dict(zip(find_blocks(whole), costs, strict=True))), ())


SETTINGS = prune.Settings("1.3x", "macs", 1 / 1.3, multiple_of=1)


def test_a_cheap_block_goes_and_a_dear_one_stays() -> None:
    whole = tower()
    made = cut(whole, ranked(whole, [1e9, 0.0, 1e9]), SETTINGS)
    assert [(item.block, item.sum) for item in made.plan.blocks] == [("4.layers", find_blocks(whole)[1].total)]
    assert made.plan.macs_after == macs(made.graph) <= macs(whole) / 1.3
    gone = {layer.layer: layer for layer in made.plan.layers if layer.weight_after == ()}
    assert gone.keys() == {"4.layers.0", "4.layers.1"} and not any(layer.macs_after for layer in gone.values())
    assert not made.choice.dead.any()  # a third of the multiply-accumulates is more than enough
    assert not cut(whole, ranked(whole, [1e9] * 3), SETTINGS).plan.blocks
    lines = list(table(made.plan))
    assert "blocks that go as a whole: 4.layers" in lines
    assert next(line for line in lines if line.startswith("4.layers.0")).split()[2:] == ["gone", "221,184", "0"]


def test_what_is_saved_beyond_the_wish_is_worth_nothing() -> None:
    """For a little less, a channel is the better deal, though per multiply-accumulate the block is."""
    whole = tower()
    coupling = find_groups(whole)
    hidden = {group: values for group, values in magnitude(whole, coupling).items() if group.name != "0"}
    curves = curves_of(hidden, "global")
    dear = 3 * max(curve.cost[1] for curve in curves.values())
    candidates = Candidates(curves, {find_blocks(whole)[1]: dear})
    chosen = [
        choose(whole, coupling, candidates, measure="macs", ratio=ratio, multiple_of=1).blocks for ratio in (0.99, 0.7)
    ]
    assert [len(blocks) for blocks in chosen] == [0, 1]


def test_at_most_half_of_the_blocks_go() -> None:
    whole = tower()
    assert len(cut(whole, ranked(whole, [0.0] * 3), prune.Settings("9x", "macs", 1 / 9)).plan.blocks) == 2


def test_the_layer_before_a_dropped_block_says_what_it_said() -> None:
    whole = tower(silent=True)
    choice = Choice(np.zeros(find_groups(whole).units, bool), find_blocks(whole)[2:], 0.0)
    small = without(ranked(whole, [0.0] * 3), choice)
    wanted = batched(whole)(pictures())
    cut_off = float((batched(small)(pictures()) - wanted).abs().max())
    repair(Reference(whole, pictures(), batch=16, per_image=256), small, find_groups(whole), choice)
    assert float((batched(small)(pictures()) - wanted).abs().max()) < 0.02 * cut_off


def test_blocks_are_judged_and_trained_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imitate, "STEPS", 100)
    whole = tower(silent=True)
    pruned = prune.run(whole, prune.Settings("1.4x", "macs", 1 / 1.4), pictures(64))
    assert [item.block for item in pruned.plan.blocks] == ["5.layers"]
    assert "without the blocks 5.layers" in pruned.changes[0]
    assert "trained for 100 batches of 64" in pruned.changes[2]
