"""Scores, the choice of what goes, the plan as data, and requests that cannot be met."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from prune_nets import NETS, SHAPE, graph, net
from torch import Tensor, nn

from shrink import prune
from shrink.errors import RecipeError
from shrink.graph.capture import capture
from shrink.prune import imitate, scores
from shrink.prune.choose import step_of
from shrink.prune.cost import macs, parameters
from shrink.prune.groups import find_groups
from shrink.prune.plan import Plan, dead_units
from shrink.prune.remove import remove


def settings(**changes: object) -> prune.Settings:
    given = {"wish": "1.5x", "measure": "macs", "ratio": 1 / 1.5, "score": "magnitude"}
    return prune.Settings(**{**given, **changes})  # type: ignore[arg-type]


def pictures(count: int = 40) -> torch.Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("score", ["error", "taylor", "magnitude", "random"])
def test_every_score_reaches_the_wish(score: str) -> None:
    whole = graph("depthwise")
    pruned = prune.run(whole, settings(score=score, multiple_of=1), pictures(), apply_only=True)
    assert macs(pruned.graph) <= macs(whole) / 1.5
    assert pruned.plan.macs_after == macs(pruned.graph) and pruned.plan.parameters_after == parameters(pruned.graph)


def test_parameters_can_be_the_measure() -> None:
    whole = graph("plain")
    pruned = prune.run(whole, settings(wish="50%", measure="parameters", ratio=0.5), None)
    assert parameters(pruned.graph) <= parameters(whole) / 2


def test_the_plan_is_data_that_gives_the_same_graph_again() -> None:
    whole = graph("attention")
    pruned = prune.run(whole, settings(), None)
    plan = msgspec.json.decode(msgspec.json.encode(pruned.plan), type=Plan)
    assert plan == pruned.plan
    coupling = find_groups(whole)
    again = remove(whole, coupling, dead_units(plan, coupling))
    image = pictures(1)
    assert torch.equal(again(image), pruned.graph(image))
    assert sum(layer.macs_before for layer in plan.layers) < plan.macs_before  # products of attention are beside them
    assert {layer.layer for layer in plan.layers} == {"0", "3.layers.0", "3.layers.1", "6"}


def test_the_least_of_all_weights_goes_first() -> None:
    torch.manual_seed(0)
    module = NETS["plain"]()
    quiet = [1, 4, 6]
    with torch.no_grad():
        module.get_parameter("3.weight")[quiet] *= 1e-3
        module.get_parameter("3.bias")[quiet] *= 1e-3
        module.get_parameter("5.weight")[:, quiet] *= 1e-3
    whole = capture(module, SHAPE)
    coupling = find_groups(whole)
    group = next(group for group in coupling.groups if group.name == "3")
    assert sorted(np.argsort(scores.magnitude(whole, coupling)[group])[:3]) == quiet
    assert sorted(np.argsort(scores.taylor(whole, coupling, [(pictures(8), None)])[group])[:3]) == quiet
    labelled = scores.taylor(whole, coupling, [(pictures(8), torch.zeros(8, dtype=torch.int64))])
    assert sorted(np.argsort(labelled[group])[:3]) == quiet


def test_isomorphic_ranking_does_not_see_the_scale_of_a_kind() -> None:
    coupling = find_groups(graph("mlp"))
    (group,) = coupling.groups
    small, large = ({group: np.arange(1.0, 33.0) * factor} for factor in (1, 1000))
    curves = [scores.curves_of(values, "isomorphic")[group].cost for values in (small, large)]
    np.testing.assert_allclose(*curves)
    assert scores.curves_of(large, "global")[group].cost[1] == 1000


@pytest.mark.parametrize(
    ("name", "layer", "multiple_of", "step"),
    [("mlp", "3.layers.1", 8, 4), ("mlp", "3.layers.1", 2, 2), ("plain", "0", 8, 1), ("grouped", "3", 8, 1)],
)
def test_steps_are_at_most_an_eighth_of_a_group(name: str, layer: str, multiple_of: int, step: int) -> None:
    coupling = find_groups(graph(name))
    group = next(group for group in coupling.groups if group.name == layer)
    assert step_of(coupling, group, multiple_of) == step


def test_channels_are_left_in_multiples() -> None:
    pruned = prune.run(graph("mlp"), settings(ratio=0.8), None)
    (cut,) = pruned.plan.cuts
    assert cut.removed and (cut.units - len(cut.removed)) % 4 == 0


def test_what_would_empty_a_layer_is_refused_with_the_best_that_can_be_had() -> None:
    with pytest.raises(RecipeError) as caught:
        prune.run(graph("plain"), settings(wish="1000x", ratio=0.001), None)
    assert caught.value.what == "pruning by 1000x cannot be reached"
    assert "without emptying a layer" in caught.value.why and caught.value.fix.startswith("ask for at most ")
    best = float(caught.value.fix.removeprefix("ask for at most ").partition("x")[0])
    assert prune.run(graph("plain"), settings(ratio=1 / best), None).plan.macs_after


class Gated(nn.Module):
    """A block of a gMLP: no channel can go exactly, for a norm takes the statistics of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(8), nn.LayerNorm(16)
        self.wide, self.out = nn.Linear(8, 32), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        left, right = self.wide(self.norm(tokens)).chunk(2, -1)
        return x + self.out(left * self.inner(right)).transpose(1, 2).reshape(x.shape)


def test_where_no_channel_can_go_the_score_with_which_blocks_go_is_advised() -> None:
    torch.manual_seed(0)
    captured = capture(net(Gated(), Gated()).eval().requires_grad_(False), SHAPE)
    with pytest.raises(RecipeError, match=r"100\.0% of the multiply-accumulates are left") as caught:
        prune.run(captured, settings(ratio=0.7), None)
    assert caught.value.fix == 'choose the score "error", with which whole blocks may go'
    pruned = prune.run(captured, settings(ratio=0.7, score="error"), pictures())
    assert len(pruned.plan.blocks) == 1 and pruned.plan.macs_after <= 0.7 * pruned.plan.macs_before


def test_a_layer_to_keep_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match="no layer '33' to keep") as caught:
        prune.run(graph("plain"), settings(keep=("33",)), None)
    assert "did you mean" in caught.value.fix or "use one of" in caught.value.fix


def test_a_kept_layer_and_the_answers_are_in_the_plan_with_their_reason() -> None:
    plan = prune.run(graph("plain"), settings(keep=("3",), ratio=0.9), None).plan
    assert {(item.layer, item.why) for item in plan.skipped} == {
        ("3", "asked to be kept"),
        ("8", "the model's answers"),
    }
    after = {layer.layer: layer.weight_after[0] for layer in plan.layers}
    assert after["3"] == 12 and after["8"] == 5


def test_a_score_that_needs_images_says_so() -> None:
    with pytest.raises(RecipeError, match="the score 'error' needs images"):
        prune.run(graph("plain"), settings(score="error"), None)


def test_fitting_is_told_and_trains_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imitate, "STEPS", 100)
    pruned = prune.run(graph("residual"), settings(score="error", seed=1), pictures())
    assert [change.split()[0] for change in pruned.changes[:2]] == ["pruned", "refitted"]
    assert "trained for 100 batches of 64" in pruned.changes[2]
