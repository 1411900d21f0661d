"""Run a graph, which is captured for one image, on many at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from shrink.graph.edit import constant, is_constant


def batched(graph_module: fx.GraphModule) -> Callable[[Tensor], Tensor]:
    """The graph as a function of (N, C, H, W) to (N, classes); gradients flow to its constants."""
    each: Callable[[Tensor], Tensor] = torch.vmap(graph_module)

    def run(images: Tensor) -> Tensor:
        with _batching():
            return each(images.unsqueeze(1)).squeeze(1)

    return run


def batched_parts(graph_module: fx.GraphModule) -> Callable[[Tensor], list[Tensor]]:
    """A graph whose output is several values as a function of (N, C, H, W): the first (N, classes), the others with
    N as an additional first dimension."""
    each: Callable[[Tensor], Sequence[Tensor]] = torch.vmap(graph_module)

    def run(images: Tensor) -> list[Tensor]:
        with _batching():
            first, *others = each(images.unsqueeze(1))
        return [first.squeeze(1), *others]

    return run


def _batching() -> AbstractContextManager[None]:
    """Attention as matrix products: PyTorch's fused one has no rule for many at once."""
    return sdpa_kernel(SDPBackend.MATH)


class Walk:
    """The calls of a graph, one after the other, on many images at once.

    Attributes:
        values: node -> its value, from when it is computed until its last reader is. What depends on the images
            has N as an additional first dimension.
    """

    def __init__(self, graph_module: fx.GraphModule, images: Tensor) -> None:
        self.graph_module = graph_module
        self.values: dict[fx.Node, Any] = {}
        self._done: set[fx.Node] = set()
        self._changed: Mapping[str, Tensor] = {}
        for node in graph_module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = images.unsqueeze(1)

    def calls(self) -> list[fx.Node]:
        """All calls in order, each to be given to `step`."""
        return [node for node in self.graph_module.graph.nodes if node.op == "call_function"]

    def read(self, node: Any) -> Any:
        """The value of a node; a constant as it is now."""
        if not is_constant(node):
            return self.values[node]
        return self._changed[node.target] if node.target in self._changed else constant(self.graph_module, node)

    def fork(self, constants: Mapping[str, Tensor]) -> Walk:
        """Another walk that goes on from here, in which constants, by their targets, have other values."""
        other = copy.copy(self)
        other.values, other._done, other._changed = dict(self.values), set(self._done), constants
        return other

    def answers(self) -> Tensor:
        """(N, classes), at the end of the walk."""
        (output,) = (node for node in self.graph_module.graph.nodes if node.op == "output")
        found: Tensor = self.values[output.args[0]]
        return found.squeeze(1)

    def step(self, node: fx.Node) -> Any:
        """Compute one call; what nobody reads any more is dropped."""
        sources = list(dict.fromkeys(node.all_input_nodes))
        given = [self.read(source) for source in sources]

        def single(*values: Any) -> Any:
            at = dict(zip(sources, values, strict=True))
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), at.__getitem__)
            return node.target(*args, **kwargs)  # type: ignore[operator]

        moving = tuple(None if is_constant(source) else 0 for source in sources)
        with torch.no_grad(), _batching():
            value = self.values[node] = torch.vmap(single, in_dims=moving)(*given)
        self._done.add(node)
        for source in sources:
            if self._done.issuperset(source.users):
                self.values.pop(source, None)
        return value
