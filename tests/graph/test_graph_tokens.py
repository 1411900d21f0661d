"""The tokens of two graphs: which they share, and that they come out beside unchanged scores."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph_nets import LIBRARY_NETS, NETS, SHAPE, images, lively
from torch import Tensor, fx

from shrink.errors import RecipeError
from shrink.graph.capture import capture
from shrink.graph.tokens import shared_tokens
from shrink.graph.training import Network
from shrink.steps.tuning import matched
from shrink.tune.teacher import Teacher


def graph(name: str) -> fx.GraphModule:
    return capture(lively((LIBRARY_NETS | NETS)[name]()), SHAPE)


@pytest.mark.parametrize("name", ["encoder", "vit", "swin", "residual"])
def test_tokens_are_what_layer_norms_read(name: str) -> None:
    norms = [part for part in (LIBRARY_NETS | NETS)[name]().modules() if isinstance(part, torch.nn.LayerNorm)]
    one = graph(name)
    assert len(shared_tokens(one, one)) == len(norms)
    assert shared_tokens(one, graph("plain")) == shared_tokens(graph("plain"), one) == ()


def test_a_telling_network_gives_the_same_scores_and_what_a_hook_sees() -> None:
    """The values of the model's own norms, by hooks on the module that was captured."""
    module, seen = lively(LIBRARY_NETS["vit"]()), []
    for part in module.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    batch = torch.cat(images(3))
    wanted = module(batch)
    network = Network(capture(lively(LIBRARY_NETS["vit"]()), SHAPE))
    scores, *told = network.telling(shared_tokens(network.graph_module, network.graph_module))(batch)
    assert torch.allclose(scores, wanted, atol=1e-5)
    assert len(told) == len(seen)
    for mine, theirs in zip(told, seen, strict=True):
        assert torch.allclose(mine.flatten(0, 1) if mine.dim() > theirs.dim() else mine, theirs, atol=1e-5)


def test_what_a_telling_network_learns_the_other_has_learnt() -> None:
    network = Network(graph("vit"))
    telling = network.telling(shared_tokens(network.graph_module, network.graph_module))
    before, batch = network(torch.cat(images(2))), torch.cat(images(2))
    scores, *_ = telling(batch)
    scores.square().mean().backward()
    with torch.no_grad():
        for weight in telling.parameters():
            weight -= 0.1 * (weight.grad if weight.grad is not None else 0)
    after = network(batch)
    assert isinstance(before, Tensor) and isinstance(after, Tensor)
    assert not torch.allclose(before, after) and torch.equal(after, telling(batch)[0])
    assert isinstance(network.finished().graph.output_node().args[0], fx.Node)


@pytest.mark.parametrize(
    ("teacher", "why"),
    [
        (lambda: Teacher(Network(graph("residual"))), "no layer norm of the model reads tokens"),
        (lambda: Teacher(torch.nn.Identity()), "another model teaches, or none"),
        (lambda: None, "another model teaches, or none"),
    ],
)
def test_where_there_is_nothing_to_match_it_is_said(teacher: Callable[[], Teacher | None], why: str) -> None:
    with pytest.raises(RecipeError) as error:
        matched(Network(graph("residual")), teacher())
    assert error.value.what == "there are no tokens to match" and error.value.why == why
