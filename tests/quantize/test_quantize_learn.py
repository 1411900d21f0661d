"""Training with rounding: forward the simulation, backward Esser's equations; what is trained is what is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from quantize_graphs import ONNX, TFLITE, graph_of, images
from torch import Tensor, nn

from shrink import quantize
from shrink.quantize.apply import apply
from shrink.quantize.learn import Learner, round_value, round_weight
from shrink.quantize.simulate import simulation
from shrink.targets import Target


class Net(nn.Module):
    """A residual block with codes that are tied, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = y + self.second(nn.functional.max_pool2d(y, 3, 1, 1))
        return self.head(y.mean((2, 3)))


def chosen(target: Target) -> quantize.Chosen:
    torch.manual_seed(0)
    graph = graph_of(Net().requires_grad_(False))
    seen = quantize.observe(graph, [target], images(16), normalization=([0.0] * 4, [1.0] * 4))
    return quantize.choose(graph, seen, target, images(4, seed=9), effort="fast")


def simulated(state: quantize.Chosen) -> Tensor:
    run = simulation(apply(state.graph, state.plan))
    return torch.cat([run(image) for image in images(32, seed=5)])


def answered(learner: Learner) -> Tensor:
    with torch.no_grad():
        given: Tensor = learner.network(torch.cat(images(32, seed=5)))
    return given


def trained(learner: Learner) -> Learner:
    """All weights and scales moved, the same way every time."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in learner.network.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape, generator=rng)
    return learner


@pytest.mark.parametrize("target", [TFLITE, ONNX], ids=lambda target: target.name)
@pytest.mark.parametrize("moved", [False, True])
def test_the_network_answers_what_the_written_graph_answers(target: Target, moved: bool) -> None:
    """One graph multiplies where the other divides by the scale, so a value between two codes may go either way."""
    before = chosen(target)
    learner = trained(before.learner()) if moved else before.learner()
    after = replace(before, state=learner.state())
    given, wanted = answered(learner), simulated(after)
    code = float(wanted.abs().max()) / 100
    assert float((given - wanted).abs().mean()) < code / 20 and float((given - wanted).abs().max()) < code
    if moved:
        assert float((wanted - simulated(before)).abs().mean()) > code / 2, "the training changed something"


def test_the_state_it_starts_from_is_left_alone() -> None:
    before = chosen(TFLITE)
    answers = simulated(before)
    trained(before.learner())
    assert torch.equal(simulated(before), answers)


def test_what_is_farther_from_the_float_model_is_not_kept_whatever_the_training_says() -> None:
    before = chosen(TFLITE)
    after = before.learned(trained(before.learner()).state(), "trained", better=True)
    *earlier, last = after.rungs
    assert last.error > min(rung.error for rung in earlier if rung.kept)
    assert not last.kept and "farther from the float model" in last.why and after.state is before.state


def test_what_is_farther_is_kept_where_the_judge_of_the_training_decides_alone() -> None:
    before = chosen(TFLITE)
    state = trained(before.learner()).state()
    after = before.learned(state, "trained", better=True, alone="labels had a say")
    assert after.rungs[-1].error > before.error
    assert after.state is state and after.rungs[-1].kept and "labels" in after.rungs[-1].why
    assert not before.learned(state, "trained", better=False, alone="labels had a say").rungs[-1].kept


def test_what_is_nearer_is_kept_only_if_the_training_says_so_too() -> None:
    """It begins with ranges eight times too wide; what was trained are those that the ladder found."""
    good = chosen(TFLITE)
    ranges = {name: replace(r, low=r.low * 8, high=r.high * 8) for name, r in good.state.ranges.items()}
    bad = replace(good.state, ranges=ranges)
    rung = replace(good.rungs[-1], error=good.tools.error(bad), kept=True)
    before = replace(good, state=bad, rungs=(rung,))
    assert before.learned(good.state, "trained", better=True).state is good.state
    assert before.learned(good.state, "trained", better=False).state is bad


def test_tied_values_share_what_is_learned() -> None:
    before = chosen(TFLITE)
    assert before.plan.scheme.tied, "the pool keeps its input's codes"
    codes = replace(before, state=trained(before.learner()).state()).plan.codes
    assert all(codes[a] == codes[b] for a, b in before.plan.scheme.tied)


def test_gradients_are_those_of_the_learned_step_size() -> None:
    """Esser et al. 2020, equation 3, value by value in numpy; the logarithm brings the step as a factor."""
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(2)).mul(3).requires_grad_()
    change, step, zero = torch.zeros(1, requires_grad=True), 0.02, 20
    weights = torch.randn(3, 40, generator=torch.Generator().manual_seed(3))
    (round_value(x, change, step, zero) * weights).sum().backward()
    v = x.detach().double().numpy() / step
    low, high = -128 - zero, 127 - zero
    inside = (v > low) & (v < high)
    slope = np.where(inside, np.rint(v) - v, np.clip(v, low, high))
    assert x.grad is not None and change.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), np.where(inside, weights.numpy(), 0))
    assert float(change.grad) == pytest.approx(step * float((slope * weights.numpy()).sum()), rel=1e-3)
    assert inside.any() and not inside.all()


def test_each_channel_of_a_weight_learns_its_own_step() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    scales, change = torch.tensor([0.001, 0.01, 1.0]), torch.zeros(3, requires_grad=True)
    rounded = round_weight(weight, scales, change)
    codes = rounded.detach() / scales[:, None]
    torch.testing.assert_close(codes, codes.round())
    assert float(codes.abs().max()) == 127
    rounded.sum().backward()
    v = weight.detach().double().numpy() / scales.double().numpy()[:, None]
    slope = np.where(np.abs(v) < 127, np.rint(v) - v, np.clip(v, -127, 127))
    assert change.grad is not None
    np.testing.assert_allclose(change.grad.numpy(), slope.sum(1) * scales.numpy(), rtol=1e-3, atol=1e-6)


def test_images_at_once_are_rounded_as_one_by_one() -> None:
    learner = trained(chosen(TFLITE).learner())
    with torch.no_grad():
        alone = torch.cat([learner.network(image) for image in images(32, seed=5)])
    torch.testing.assert_close(answered(learner), alone, atol=1e-4, rtol=0)
