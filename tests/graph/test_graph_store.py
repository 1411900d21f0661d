"""A stored graph answers as before; a damaged or hostile one is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_nets import NETS, answer, images, lively
from torch import fx, nn

from shrink.errors import ModelError
from shrink.graph import store
from shrink.graph.capture import capture

SHAPE = (1, 3, 16, 16)


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return capture(lively(NETS["residual"]()), SHAPE)


@pytest.mark.parametrize("name", ["residual", "squeeze_excite", "shuffle", "windows", "encoder", "norms", "resize"])
def test_what_is_stored_comes_back(name: str) -> None:
    whole = capture(lively(NETS[name]()), SHAPE)
    data, tensors = store.dump(whole)
    again = store.load(data, tensors)
    for image in images():
        assert torch.equal(answer(again, image), answer(whole, image))
    assert store.dump(again)[0].count(b'"op"') == data.count(b'"op"')
    layers = {node.meta.get("layer", "") for node in again.graph.nodes}
    assert layers == {node.meta.get("layer", "") for node in whole.graph.nodes}


def test_a_loaded_graph_can_be_captured_again(graph: fx.GraphModule) -> None:
    again = capture(store.load(*store.dump(graph)), SHAPE)
    torch.testing.assert_close(answer(again, images()[0]), answer(graph, images()[0]))


def test_a_slice_to_the_end_comes_back() -> None:
    """PyTorch writes its end as the largest 64-bit number; so do the shortcuts of CIFAR-10's residual networks."""

    class EverySecond(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, ::2, 1:].mean((2, 3))

    whole = capture(EverySecond(), (1, 3, 8, 8))
    data, tensors = store.dump(whole)
    image = torch.randn(1, 3, 8, 8)
    assert torch.equal(store.load(data, tensors)(image), whole(image))


def test_weights_that_share_memory_are_written_twice() -> None:
    linear = nn.Linear(3, 3)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear, nn.ReLU(), linear)
    tied = capture(module, SHAPE)
    data, tensors = store.dump(tied)
    import safetensors.torch

    again = store.load(data, safetensors.torch.load(safetensors.torch.save(tensors)))
    assert torch.equal(answer(again, images()[0]), answer(tied, images()[0]))


Edit = Callable[[dict[str, Any]], object]


def _node(content: dict[str, Any], op: str) -> dict[str, Any]:
    found: dict[str, Any] = next(node for node in content["nodes"] if node["op"].startswith(op))
    return found


HOSTILE: dict[str, tuple[Edit, str]] = {
    "another op": (lambda c: _node(c, "relu").update(op="from_file.default"), "names the op 'from_file.default'"),
    "a dunder": (lambda c: _node(c, "relu").update(op="__class__.__init__"), "names the op '__class__.__init__'"),
    "another format": (lambda c: c.update(format=2), "format 2"),
    "an unknown field": (lambda c: c.update(code="import os"), "unknown field"),
    "a later node": (lambda c: _node(c, "relu").update(args=[{"node": c["nodes"][-2]["name"]}]), "an argument is"),
    "a name twice": (lambda c: c["nodes"][1].update(name=c["nodes"][0]["name"]), "is there twice"),
    "a name that is code": (lambda c: c["nodes"][0].update(name="x = 1; import os"), "or is none"),
    "no output": (lambda c: c["nodes"].pop(), "one image and one output"),
    "two images": (lambda c: c["nodes"].insert(1, {"name": "more", "op": "image"}), "one image and one output"),
    "a tensor that is missing": (lambda c: _node(c, "constant").update(args=["../../etc"]), "is missing"),
    "arguments it does not take": (lambda c: _node(c, "conv2d").update(args=[1, 2, 3]), "does not run"),
    "deep nesting": (lambda c: _node(c, "conv2d").update(args=[[[[[[[1]]]]]]]), "nested too deeply"),
    "a huge number": (lambda c: _node(c, "conv2d").update(args=[2**63]), "Integer|number"),
    "all the memory": (
        lambda c: c["nodes"].insert(
            1, {"name": "bomb", "op": "expand.default", "args": [{"node": c["nodes"][0]["name"]}, [2**40, 3, 16, 16]]}
        ),
        "numbers|does not run",
    ),
    "a huge image": (lambda c: c.update(input_shape=[1, 3, 2**20, 2**20]), "sizes that no image has"),
    "an output of numbers": (lambda c: _node(c, "output").update(args=[5]), "output is not one tensor"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_is_refused(graph: fx.GraphModule, name: str) -> None:
    edit, words = HOSTILE[name]
    data, tensors = store.dump(graph)
    content = json.loads(data)
    content["nodes"].sort(key=lambda node: node["op"] != "image")  # the image first, so that it can be named
    edit(content)
    with pytest.raises(ModelError, match=words):
        store.load(json.dumps(content).encode(), tensors)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"format":1}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        store.load(data, {})


def test_an_op_that_the_format_does_not_have_is_named() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(768, 5), nn.Softmin(1))
    whole = capture(module, SHAPE)
    for node in whole.graph.nodes:
        if "softmax" in str(node.target):
            node.target = torch.ops.aten.cumsum.default
    with pytest.raises(ModelError, match=r"the op cumsum.default in layer '2'"):
        store.dump(whole)
