"""A graph that was captured for one image answers many at once as it answers each."""

from __future__ import annotations

import pytest
import torch
from graph_nets import LIBRARY_NETS, NETS, answer, images, lively

from shrink.graph.batch import Walk, batched
from shrink.graph.capture import capture

NAMES = ("residual", "squeeze_excite", "windows", "encoder")
MAKERS = {**NETS, **LIBRARY_NETS}


@pytest.mark.parametrize("name", NAMES)
def test_many_at_once_are_each_alone(name: str) -> None:
    graph = capture(lively(MAKERS[name]()), (1, 3, 16, 16))
    singles = images()
    together = torch.cat(singles)
    wanted = torch.cat([answer(graph, image) for image in singles])
    torch.testing.assert_close(answer(batched(graph), together), wanted, rtol=1e-4, atol=1e-5)

    walk = Walk(graph, together)
    for node in walk.calls():
        last = walk.step(node)
    torch.testing.assert_close(last.flatten(0, 1), wanted, rtol=1e-4, atol=1e-5)
    assert len(walk.values) == 1  # all others were dropped after their last use


def test_gradients_reach_the_weights() -> None:
    graph = capture(lively(NETS["residual"]()), (1, 3, 16, 16))
    weight = graph.get_parameter("6.weight").requires_grad_()
    batched(graph)(torch.cat(images())).sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
