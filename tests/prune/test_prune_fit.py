"""What is left is fitted: against least squares, networks with a known answer, and the whole model."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from prune_nets import SHAPE, graph
from torch import Tensor, fx, nn

from shrink.graph.batch import Walk, batched
from shrink.graph.capture import capture
from shrink.prune.budget import Budget, Cost
from shrink.prune.choose import Candidates, Choice, choose
from shrink.prune.cost import macs, parameters, work
from shrink.prune.fit import twins
from shrink.prune.groups import find_groups
from shrink.prune.imitate import Lesson, as_asked, imitate, lesson
from shrink.prune.influence import Reference
from shrink.prune.measure import at_the_answers
from shrink.prune.moments import Moments, flat_weight, moments
from shrink.prune.questions import closer, questions
from shrink.prune.ranking import Ranked
from shrink.prune.remove import remove
from shrink.prune.repair import repair
from shrink.prune.surgeon import Curve, curves, remove_in_order


def pictures(count: int = 32, seed: int = 3) -> Tensor:
    return torch.randn(count, *SHAPE[1:], generator=torch.Generator().manual_seed(seed))


def written(graph_module: fx.GraphModule) -> int:
    """What a runtime takes beside multiplying: it clamps as it writes, and depthwise convolutions multiply slowly."""
    clamps = (torch.ops.aten.relu.default, torch.ops.aten.hardtanh.default)
    nodes = [n for n in graph_module.graph.nodes if n.op == "call_function" and n.target not in clamps]
    found = [(n, math.prod(n.meta["shape"])) for n in nodes if "shape" in n.meta]  # a split has none, its parts have
    slow = sum(24 * 9 * count for node, count in found if is_depthwise(node))  # 25 for each of 3 x 3 products, not 1
    return slow + sum(16 * count for _, count in found)


def is_depthwise(node: fx.Node) -> bool:
    return node.target is torch.ops.aten.conv2d.default and len(node.args) > 6 and node.args[6] == node.meta["shape"][1]


def doubled() -> nn.Module:
    """Six channels in pairs: each of the last three is a multiple of one of the first three."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
    with torch.no_grad():
        for i, factor in enumerate((2.0, 0.5, 3.0)):
            first.weight[3 + i], first.bias[3 + i] = factor * first.weight[i], factor * first.bias[i]
    return nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_the_order_is_that_of_trying_all() -> None:
    """The first unit to go is the one whose loss costs least when the readers are fitted by least squares."""
    whole = graph("plain")
    coupling = find_groups(whole)
    group = next(group for group in coupling.groups if group.name == "3")
    gathered = moments(whole, [pictures()], per_image=1000)
    node = next(node for node in gathered if node.meta["layer"] == "5")
    gathered[node].rows = 10**12  # as if of endless images: nothing is shrunk
    removal = remove_in_order(whole, group, {node: gathered[node]}, damping=1e-7)
    assert removal is not None

    second = gathered[node].second.double()
    weight = flat_weight(whole, node).double()
    power = float((weight @ second * weight).sum() - (weight @ second[:, -1]).square().sum())

    def cost(without: tuple[int, ...]) -> float:
        left = [i for i in range(len(second)) if i not in without]
        fit = torch.linalg.pinv(second[left][:, left]) @ (weight @ second)[:, left].T
        return float((weight @ second * weight).sum() - (fit * (weight @ second)[:, left].T).sum()) / power

    gone: tuple[int, ...] = ()
    for count, unit in enumerate(removal.curve.order.tolist(), start=1):
        tried = [cost((*gone, other)) for other in range(12) if other not in gone]
        gone = (*gone, unit)
        assert cost(gone) == pytest.approx(min(tried), rel=1e-3, abs=1e-5)
        assert removal.curve.cost[count] == pytest.approx(cost(gone), rel=1e-2, abs=1e-4)
    assert (np.diff(removal.curve.cost) >= 0).all() and sorted(removal.curve.order) == list(range(12))


def test_what_few_rows_do_not_show_is_not_free() -> None:
    """Five rows span five of twelve channels; by them alone, seven would go for nothing."""
    whole = graph("plain")
    group = next(group for group in find_groups(whole).groups if group.name == "3")
    gathered = moments(whole, [pictures(1)], per_image=5)
    node = next(node for node in gathered if node.meta["layer"] == "5")
    few = remove_in_order(whole, group, {node: gathered[node]})
    alone = Moments(gathered[node].second, rows=10**12)
    free = remove_in_order(whole, group, {node: alone}, damping=1e-9)
    assert few is not None and free is not None
    assert free.curve.cost[7] < 1e-3 < 1e-2 < few.curve.cost[7]


def test_channels_that_say_the_same_go_for_nothing() -> None:
    whole = capture(doubled().requires_grad_(False), SHAPE)
    coupling = find_groups(whole)
    gathered = moments(whole, [pictures()], per_image=256)
    found = curves(whole, coupling, gathered)
    group = next(group for group in found if group.name == "0")
    assert found[group].curve.cost[3] < 0.002 < 0.02 < found[group].curve.cost[4]

    ranked = at_the_answers(whole, found, pictures(16))
    assert ranked[group].cost[3] < 1e-3
    dead = np.zeros(coupling.units, bool)
    dead[group.units[ranked[group].order[:3]]] = True
    small = remove(whole, coupling, dead)
    test = pictures(seed=9)
    wanted = batched(whole)(test)
    cut = float((batched(small)(test) - wanted).abs().max())
    repair(Reference(whole, pictures(), batch=16, per_image=256), small, coupling, Choice(dead, (), 0))
    assert float((batched(small)(test) - wanted).abs().max()) < 0.01 * cut


def test_repair_of_a_residual_block_answers_more_like_the_whole() -> None:
    whole = graph("residual")
    coupling = find_groups(whole)
    dead = np.zeros(coupling.units, bool)
    dead[next(g for g in coupling.groups if g.name == "3.layers.0").units[:6]] = True
    small = remove(whole, coupling, dead)
    test = pictures(seed=9)
    wanted = batched(whole)(test)
    cut = (batched(small)(test) - wanted).square().mean()
    repair(Reference(whole, pictures(), batch=16, per_image=256), small, coupling, Choice(dead, (), 0))
    assert (batched(small)(test) - wanted).square().mean() < 0.5 * cut


def test_imitation_brings_the_answers_nearer() -> None:
    whole = graph("residual")
    coupling = find_groups(whole)
    dead = np.zeros(coupling.units, bool)
    dead[next(g for g in coupling.groups if g.name == "3.layers.0").units[:6]] = True
    small = remove(whole, coupling, dead)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    test = pictures(seed=9)
    wanted = batched(whole)(test).softmax(1)
    cut = (batched(small)(test).softmax(1) - wanted).square().mean()
    imitate(whole, small, pictures(), Lesson(20, 64, 1e-3), rng=np.random.default_rng(0))
    assert (batched(small)(test).softmax(1) - wanted).square().mean() < 0.5 * cut
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    assert not any(parameter.requires_grad for parameter in small.parameters())


def test_half_of_the_questions_are_images_or_their_mirror_images() -> None:
    images = pictures(5)
    batch = questions(images, 64, np.random.default_rng(0))
    plain = [any(torch.equal(image, picture) for picture in images) for image in batch]
    mirrored = [any(torch.equal(image.flip(-1), picture) for picture in images) for image in batch]
    either = [a or b for a, b in zip(plain, mirrored, strict=True)]
    assert all(either[:32]) and not any(either[32:]) and 5 < sum(plain) < 27


def test_a_model_too_large_to_be_trained_is_shown_images_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, images = graph("plain"), pictures(8)
    asked = as_asked(whole, images, np.random.default_rng(0))
    assert torch.equal(asked, questions(images, 8, np.random.default_rng(0))) and not torch.equal(asked, images)
    monkeypatch.setattr("shrink.prune.imitate.WORK", 99 * 64 * 4 * work(whole))
    assert lesson(whole, whole) is None and as_asked(whole, images, np.random.default_rng(0)) is images
    monkeypatch.setattr("shrink.prune.imitate.WORK", 101 * 64 * 4 * work(whole))
    assert lesson(whole, whole) == Lesson(101, 64, 2e-4)


def test_a_closer_cut_is_part_of_the_image() -> None:
    """On an image whose value is the column, a cut of it rises evenly, less steeply, and within its range."""
    ramp = torch.arange(16.0).expand(8, 3, 16, 16)
    cut = closer(ramp, np.random.default_rng(0))
    assert cut.shape == ramp.shape and float(cut.min()) >= 0 and float(cut.max()) <= 15
    slopes = cut[..., 2:-2].diff(dim=-1)
    assert float(slopes.min()) > 0.69 and float(slopes.max()) < 1.001
    torch.testing.assert_close(slopes, slopes[..., :1].expand_as(slopes), atol=1e-3, rtol=0)


def test_the_twin_of_a_sum_is_what_is_left_of_it() -> None:
    whole = graph("residual")
    coupling = find_groups(whole)
    dead = np.zeros(coupling.units, bool)
    dead[next(g for g in coupling.groups if g.name == "0").units[:2]] = True
    (twin,) = twins(Ranked(whole, coupling, Candidates({}), ()), Choice(dead, (), 0), remove(whole, coupling, dead))
    assert {axis: left.tolist() for axis, left in twin.left.items()} == {1: [2, 3, 4, 5, 6, 7]}


def test_imitation_brings_the_sums_nearer_too() -> None:
    whole = graph("residual")
    coupling = find_groups(whole)
    dead = np.zeros(coupling.units, bool)
    dead[next(g for g in coupling.groups if g.name == "3.layers.0").units[:6]] = True
    small = remove(whole, coupling, dead)
    (twin,) = twins(Ranked(whole, coupling, Candidates({}), ()), Choice(dead, (), 0), small)

    def error() -> float:
        values = []
        for walk, name in ((Walk(whole, pictures(seed=9)), twin.whole), (Walk(small, pictures(seed=9)), twin.small)):
            values += [value for call in walk.calls() for value in [walk.step(call)] if call.name == name]
        return float((values[1] - values[0]).square().mean())

    before = error()
    imitate(whole, small, pictures(), Lesson(30, 32, 2e-3), twins=[twin], rng=np.random.default_rng(0))
    assert error() < 0.5 * before


@pytest.mark.parametrize("name", ["plain", "residual", "padded_shortcut", "dense", "depthwise", "attention", "mlp"])
def test_the_budget_foretells_what_removal_gives(name: str) -> None:
    whole = graph(name)
    coupling = find_groups(whole)
    costs: tuple[Cost, ...] = ("macs", "parameters", "work")
    budgets = {cost: Budget(whole, coupling, cost) for cost in costs}
    for counts in itertools.islice(itertools.product(*[(0, len(g.units) // 2) for g in coupling.groups]), 16):
        dead = np.zeros(coupling.units, bool)
        for group, count in zip(coupling.groups, counts, strict=True):
            dead[group.units[:count]] = True
        small = remove(whole, coupling, dead)
        assert budgets["macs"].cost(np.array(counts)) == pytest.approx(macs(small))
        assert budgets["parameters"].cost(np.array(counts)) == pytest.approx(parameters(small))
        assert budgets["work"].cost(np.array(counts)) == pytest.approx(macs(small) + written(small))


def test_of_channels_that_cost_alike_per_multiplication_those_that_write_more_go_first() -> None:
    """A hidden channel of the first block is multiplied 4 + 9 + 4 times a pixel, nine in a depthwise convolution, and
    written twice; one of the second block 4 + 36 times, and once. The time saved decides.
    """
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        *(nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 4, 1)),
        *(nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 3, padding=1)),
    )
    whole = capture(net.eval(), (1, 3, 8, 8))
    coupling = find_groups(whole)
    hidden = {group.name: group for group in coupling.groups if group.name in ("1", "4")}

    def kept(second: float) -> set[str]:
        """Which blocks are whole, when 5 % of the products are gone and a channel of the second costs so much."""
        prices = {"1": 1.0, "4": second}
        found = {hidden[n]: Curve(np.arange(16), prices[n] * np.arange(17.0)) for n in prices}
        choice = choose(whole, coupling, Candidates(found), measure="macs", ratio=0.95, multiple_of=1)
        return {name for name, group in hidden.items() if not choice.dead[group.units].any()}

    by_time = (4 + 36 + 16) / (4 + 25 * 9 + 4 + 16 + 16)
    assert kept(0.98 * by_time) == {"1"}
    assert kept(1.02 * by_time) == {"4"}  # though per product it is cheaper, to a price of 40 / 17


def test_the_saving_of_one_unit_is_the_slope_of_the_cost() -> None:
    whole = graph("plain")
    coupling = find_groups(whole)
    budget = Budget(whole, coupling, "macs")
    nothing = np.zeros(len(coupling.groups), np.int64)
    for i, saving in enumerate(budget.saving(nothing)):
        one = nothing.copy()
        one[i] = 1
        assert saving == pytest.approx(budget.cost(nothing) - budget.cost(one))
