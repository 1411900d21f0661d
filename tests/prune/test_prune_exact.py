"""What costs nothing: places that nobody reads, and heads in another basis. The answers stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prune_nets import SHAPE, Function, graph, images, net
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shrink import prune
from shrink.graph.batch import batched
from shrink.graph.capture import capture
from shrink.graph.edit import copied
from shrink.prune.cost import macs
from shrink.prune.groups import find_groups
from shrink.prune.measure import at_the_answers, scaled
from shrink.prune.moments import moments
from shrink.prune.products import products, values
from shrink.prune.remove import get, put
from shrink.prune.surgeon import Curve, curves
from shrink.prune.turn import turn
from shrink.prune.unfuse import unfuse
from shrink.prune.unread import drop_unread

TOKENS, WIDTH, HIDDEN = 65, 8, 16


def class_token(x: Tensor, norm: nn.Module, qkv: nn.Module, out: nn.Module, a: nn.Module, b: nn.Module) -> Tensor:
    """One layer of a transformer over 64 places and the mean of them in front, of which only the first is read."""
    x = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1)
    query, key, value = qkv(norm(x)).reshape(1, TOKENS, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    x = x + out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(1, TOKENS, WIDTH))
    x = x + b(F.gelu(a(x)))
    return x[:, 0, :, None, None]


def separate(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module, out: nn.Module) -> Tensor:
    """Attention with a linear each, in heads of 4."""
    tokens = x.flatten(2).transpose(1, 2)[:, ::4]
    query, key, value = (layer(tokens).view(1, 64, 2, 4).transpose(1, 2) for layer in (q, k, v))
    weights = (query @ key.transpose(-2, -1) * 0.5).softmax(-1)
    return out((weights @ value).transpose(1, 2).reshape(1, 64, 8)).transpose(1, 2).reshape(1, 8, 8, 8)


def captured(module: nn.Module) -> fx.GraphModule:
    return capture(module.requires_grad_(False), SHAPE)


@pytest.fixture(scope="module")
def transformer() -> fx.GraphModule:
    torch.manual_seed(0)
    layers = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, HIDDEN), nn.Linear(HIDDEN, 8)
    return captured(net(Function(class_token, *layers)))


@pytest.fixture(scope="module")
def three_linears() -> fx.GraphModule:
    torch.manual_seed(1)
    return captured(net(Function(separate, *(nn.Linear(8, 8) for _ in range(4)))))


def pictures(count: int = 32) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(3))


def test_places_that_nobody_reads_are_not_computed(transformer: fx.GraphModule) -> None:
    few = copied(transformer)
    assert drop_unread(few)
    for image in images():
        torch.testing.assert_close(few(image), transformer(image), rtol=1e-5, atol=1e-6)
    per_token = WIDTH * WIDTH + 2 * TOKENS * WIDTH + 2 * WIDTH * HIDDEN  # out, attention, both linears of the block
    assert macs(transformer) - macs(few) == (TOKENS - 1) * per_token


@pytest.mark.parametrize("name", ["mlp", "windows", "attention", "residual", "cross_stage"])
def test_what_is_read_stays(name: str) -> None:
    few = copied(graph(name))
    drop_unread(few)
    assert macs(few) == macs(graph(name))
    for image in images():
        torch.testing.assert_close(few(image), graph(name)(image), rtol=1e-5, atol=1e-6)


def test_a_wish_that_unread_places_fulfil_removes_no_channel(transformer: fx.GraphModule) -> None:
    pruned = prune.run(transformer, prune.Settings("1.05x", "macs", 1 / 1.05, score="magnitude"), None)
    assert not any(cut.removed for cut in pruned.plan.cuts)
    assert pruned.plan.macs_before == macs(transformer) > 1.05 * pruned.plan.macs_after
    assert pruned.plan.macs_unread == pruned.plan.macs_before - pruned.plan.macs_after
    assert "places that nobody reads" in pruned.changes[0]


@pytest.mark.parametrize("name", ["attention", "by_hand"])
def test_turned_heads_answer_the_same(name: str) -> None:
    turned = copied(graph(name))
    gathered = moments(turned, [pictures()], per_image=64)
    assert turn(turned, gathered) == 1
    assert not torch.equal(
        get(turned, products(turned)[0].left.place[0]), get(graph(name), products(turned)[0].left.place[0])
    )
    for image in images():
        torch.testing.assert_close(turned(image), graph(name)(image), rtol=1e-4, atol=1e-5)


def test_separate_linears_are_turned_and_lose_width_alone(three_linears: fx.GraphModule) -> None:
    turned = copied(three_linears)
    gathered = moments(turned, [pictures()], per_image=64)
    assert turn(turned, gathered) == 1 and len(values(turned)) == 1
    for image in images():
        torch.testing.assert_close(turned(image), three_linears(image), rtol=1e-4, atol=1e-5)
    removals = curves(turned, find_groups(turned), gathered, products(turned))
    named = [group for group in removals if group.name == "3.layers.0"]  # q and k: no layer reads them
    assert any(len(group.units) == 4 for group in named)


def test_queries_of_two_directions_end_in_two_coordinates(three_linears: fx.GraphModule) -> None:
    """Heads of width 4 that ask about two directions only: the last two coordinates bring nothing."""
    flat = copied(three_linears)
    product = products(flat)[0]
    target = product.left.place[0]
    weight = get(flat, target).clone()
    for rows in product.left.rows:
        weight[rows[2:]] = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]) @ weight[rows[:2]]
    put(flat, target, weight)
    bias = str(product.left.layer.args[2].target)  # type: ignore[union-attr]
    put(flat, bias, torch.zeros(8))
    gathered = moments(flat, [pictures()], per_image=64)
    before = product.shares(flat, gathered)[product.left.rows]
    turn(flat, gathered)
    after = products(flat)[0].shares(flat, gathered)[product.left.rows]
    assert float(before.min()) > 1e-3 and float(after[:, 2:].sum()) < 1e-5
    assert (after[:, 0] >= after[:, 1]).all() and float(after.sum()) == pytest.approx(1)


def test_the_reader_of_the_values_is_told_of_the_turn() -> None:
    """Its second moments, computed from those before, are those of the turned graph."""
    turned = copied(graph("attention"))
    gathered = moments(turned, [pictures()], per_image=64)
    turn(turned, gathered)
    again = moments(turned, [pictures()], per_image=64)
    for node, found in gathered.items():
        torch.testing.assert_close(found.second, again[node].second, rtol=1e-3, atol=1e-4)


def test_a_query_that_is_also_read_elsewhere_is_left_alone() -> None:
    def nosy(x: Tensor, qkv: nn.Module, out: nn.Module) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)[:, ::4]
        query, key, value = qkv(tokens).reshape(1, 64, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value) + query
        return out(mixed.transpose(1, 2).reshape(1, 64, 8)).transpose(1, 2).reshape(1, 8, 8, 8)

    assert products(graph("attention"))
    assert not products(captured(net(Function(nosy, nn.Linear(8, 24), nn.Linear(8, 8)))))


def test_trials_that_share_their_beginning_measure_what_whole_trials_do() -> None:
    whole = graph("residual")
    gathered = moments(whole, [pictures()], per_image=256)
    removals = curves(whole, find_groups(whole), gathered)
    ranked = at_the_answers(whole, removals, pictures(8))
    wanted = batched(whole)(pictures(8)).log_softmax(1)
    for group, removal in removals.items():
        count = max(removal.readers)
        trial = copied(whole)
        for (target, axis), at in group.constants.items():
            value = get(trial, target).clone()
            value.movedim(axis, 0)[torch.from_numpy(at[removal.curve.order[:count]].flatten())] = 0
            put(trial, target, value)
        for node, weight in removal.readers[count].items():
            put(trial, str(node.args[1].target), weight[:, :-1].reshape(node.args[1].meta["shape"]))  # type: ignore[union-attr]
            put(trial, str(node.args[2].target), weight[:, -1])  # type: ignore[union-attr]
        given = batched(trial)(pictures(8)).log_softmax(1)
        divergence = float((wanted.exp() * (wanted - given)).sum(1).mean())
        assert ranked[group].cost[count] == pytest.approx(divergence, rel=1e-3)


def test_a_curve_goes_through_both_measured_costs() -> None:
    own = Curve(np.arange(8), np.array([0, 1, 2, 3, 4, 6, 8, 10, 12], float))
    found = scaled(own, [(2, 0.01), (4, 0.04)]).cost  # twice the error, four times the divergence: a square
    np.testing.assert_allclose(found, 0.0025 * own.cost**2)


def test_a_curve_is_held_between_bounds() -> None:
    own = Curve(np.arange(4), np.array([0, 1, 2, 3, 4], float))
    steep, flat = scaled(own, [(1, 1e-6), (2, 1.0)]).cost, scaled(own, [(1, 0.5), (2, 0.5)]).cost
    assert steep[1] == pytest.approx(1 / 16) and flat[1] == pytest.approx(0.5**1.5)
    assert steep[2] == 1 and flat[2] == 0.5


@pytest.mark.parametrize("fused", ["attention", "transformer"])
def test_a_linear_taken_apart_answers_the_same_and_each_part_has_its_width(
    fused: str, transformer: fx.GraphModule
) -> None:
    whole = transformer if fused == "transformer" else graph("attention")
    apart = copied(whole)
    assert unfuse(apart) == 1
    for image in images():
        torch.testing.assert_close(apart(image), whole(image), rtol=1e-5, atol=1e-6)
    widths = [len(group.units) for group in find_groups(apart).groups].count(4)
    assert widths == [len(group.units) for group in find_groups(whole).groups].count(4) + 1


@pytest.mark.parametrize("name", ["by_hand", "mlp", "cross_stage", "separate"])
def test_only_a_fused_linear_is_taken_apart(name: str, three_linears: fx.GraphModule) -> None:
    """`by_hand` is fused, head by head; the others are not split at all, or are linears of their own."""
    whole = three_linears if name == "separate" else graph(name)
    assert unfuse(copied(whole)) == int(name == "by_hand")
