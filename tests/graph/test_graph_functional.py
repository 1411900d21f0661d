"""Writes in place and views are spelled here as PyTorch's own pass would spell them, or left to that pass."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_nets import LIBRARY_NETS, NETS, SHAPE, Fn, answer, images, lively
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shrink.graph import functional
from shrink.graph.capture import capture


def exported(module: nn.Module) -> fx.Graph:
    with torch.no_grad():
        graph: fx.Graph = torch.export.export(module.eval(), (torch.zeros(SHAPE),), strict=False).graph
    functional.drop_inert(graph)
    return graph


def later_reader_of_the_written(x: Tensor) -> Tensor:
    y = x * 2
    z = y.relu_()
    return y + z


def earlier_reader_of_the_written(x: Tensor) -> Tensor:
    y = x * 2
    before = y + 1
    return y.relu_() * before


def writes_one_after_another(x: Tensor) -> Tensor:
    y = x * 2
    y += x
    y.clamp_(-1, 1)
    F.hardswish(y, inplace=True)
    return y.sub_(0.25)


def written_through_the_last_view(x: Tensor) -> Tensor:
    return (x * 2).flatten(1).relu_() + 1


def copy_of_the_written(x: Tensor) -> Tensor:
    y = x * 2
    z = y.clone()
    y.relu_()
    return y - z


def input_is_written(x: Tensor) -> Tensor:
    return x.mul_(2).flatten(1).add_(x.flatten(1))


def view_read_after_the_write(x: Tensor) -> Tensor:
    y = x * 2
    view = y.flatten(1)
    y.relu_()
    return view


def whole_read_after_a_part_was_written(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 1].add_(1)
    return y


def first_name_read_after_a_write_through_a_view(x: Tensor) -> Tensor:
    y = x * 2
    view = y.relu_().flatten(1)
    view.sub_(1)
    return y


def value_read_behind_a_dropout_after_the_write(x: Tensor) -> Tensor:
    y = x * 2
    kept = F.dropout(y, 0.5, training=False)  # in inference it is y itself
    y.relu_()
    return kept


def slice_assigned(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :, 1:] = x[:, :, :-1]
    return y


def wider_type_is_added(x: Tensor) -> Tensor:
    return (x * 2).add_(x.double())


def statistics_of_the_batch(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


def many_at_once_are_written(x: Tensor) -> Tensor:
    parts = [x * 2, x * 3]
    torch._foreach_add_(parts, 1.0)
    return parts[0] + parts[1]


def called_by_keywords(x: Tensor) -> Tensor:
    y = torch.batch_norm(
        input=x * 2, weight=None, bias=None, running_mean=torch.zeros(3), running_var=torch.ones(3),
        training=False, momentum=0.1, eps=1e-5, cudnn_enabled=False,
    )  # fmt: skip
    y = torch.relu_(input=torch.dropout(input=y, p=0.5, train=False))
    return torch.chunk(input=y, chunks=3, dim=1)[1] + torch.flatten(y, start_dim=2).sum()


class Counts(nn.Module):
    """Writes to a part of a buffer, and reads all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen[0].add_(1)
        return x + self.seen[None, :, None, None]


def test_a_part_of_a_buffer_that_is_written_is_seen_in_the_buffer() -> None:
    assert not functional.can_spell(exported(Counts()))
    image = images(1)[0]
    assert torch.equal(answer(capture(Counts(), SHAPE), image), Counts()(image))


def test_dropout_that_is_not_inert_is_not_dropped() -> None:
    """A model that drops at random in inference, too, has no one answer to export."""
    for inplace in (False, True):
        graph = exported(Fn(lambda x, inplace=inplace: F.dropout(x * 2, 0.5, training=True, inplace=inplace)))
        assert not functional.can_spell(graph)


PLAIN = [
    later_reader_of_the_written, earlier_reader_of_the_written, writes_one_after_another, written_through_the_last_view,
    copy_of_the_written, input_is_written, called_by_keywords, value_read_behind_a_dropout_after_the_write,
]  # fmt: skip
NOT_PLAIN = [
    view_read_after_the_write, whole_read_after_a_part_was_written, first_name_read_after_a_write_through_a_view,
    slice_assigned, many_at_once_are_written, wider_type_is_added, statistics_of_the_batch,
]  # fmt: skip


@pytest.mark.parametrize("function", [*PLAIN, *NOT_PLAIN], ids=lambda f: f.__name__)
def test_a_write_is_seen_by_all_who_read_later(function: Callable[[Tensor], Tensor]) -> None:
    graph_module = capture(Fn(function), SHAPE)
    for image in images():
        torch.testing.assert_close(answer(graph_module, image.clone()), function(image.clone()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", PLAIN, ids=lambda f: f.__name__)
def test_a_write_that_is_read_under_its_own_name_is_spelled_here(function: Callable[[Tensor], Tensor]) -> None:
    assert functional.can_spell(exported(Fn(function)))


@pytest.mark.parametrize("function", NOT_PLAIN, ids=lambda f: f.__name__)
def test_a_write_that_is_read_through_another_view_is_left_to_pytorch(function: Callable[[Tensor], Tensor]) -> None:
    assert not functional.can_spell(exported(Fn(function)))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x.flatten(2),
    "unflatten": lambda x: x.unflatten(2, (4, -1)),
    "reshape": lambda x: x.permute(0, 2, 3, 1).reshape(1, -1, 3),
    "reshape_as": lambda x: x.permute(0, 2, 3, 1).reshape_as(x) + x,
    "view_as": lambda x: x.view(1, -1).view_as(x) + x,
    "expand_as": lambda x: x.mean(1, keepdim=True).expand_as(x) + x,
    "chunk": lambda x: torch.cat(x.chunk(5, dim=-1)[::-1], -1),
    "chunk of the first dimension": lambda x: x[0].chunk(2)[1] + 1,
    "contiguous": lambda x: x.permute(0, 2, 3, 1).contiguous().view(1, -1),
    "to": lambda x: x.to(torch.float64).to(torch.float32) + x.to("cpu"),
    "to int": lambda x: x.to(torch.int32).to(torch.float32),
    "movedim": lambda x: x.movedim(1, -1) + 1,
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_what_it_is_in_pytorch(name: str) -> None:
    graph_module = capture(Fn(VIEWS[name]), SHAPE)
    for image in images():
        torch.testing.assert_close(answer(graph_module, image), VIEWS[name](image), rtol=1e-5, atol=1e-5)


def calls(graph_module: fx.GraphModule) -> Counter[tuple[Any, Any]]:
    """Every op with the shape of its value; not splits, which PyTorch's pass writes anew for each of their parts."""
    nodes = [node for node in graph_module.graph.nodes if node.op == "call_function"]
    return Counter((node.target, node.meta["shape"]) for node in nodes if "shape" in node.meta)


@pytest.mark.parametrize("name", {**NETS, **LIBRARY_NETS})
def test_networks_get_the_graph_of_pytorchs_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = lively({**NETS, **LIBRARY_NETS}[name]())
    here = capture(copy.deepcopy(module), SHAPE)
    monkeypatch.setattr(functional, "can_spell", lambda graph: False)
    there = capture(module, SHAPE)
    assert calls(here) == calls(there)
    image = images(1)[0]
    assert torch.equal(answer(here, image), answer(there, image))
