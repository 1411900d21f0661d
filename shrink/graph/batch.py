"""Run a graph, which is captured for one image, on many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.edit import constant, is_constant


def batched(graph_module: fx.GraphModule) -> Callable[[Tensor], Tensor]:
    """The graph as a function of (N, C, H, W) to (N, classes); gradients flow to its constants."""
    each: Callable[[Tensor], Tensor] = torch.vmap(graph_module)
    return lambda images: each(images.unsqueeze(1)).squeeze(1)


def walk(graph_module: fx.GraphModule, images: Tensor) -> Iterator[tuple[fx.Node, tuple[Any, ...], Any]]:
    """Every call of the graph in order, with its arguments and value; each is dropped after its last use.

    A constant is read when it is used, so that it may be changed between two steps.

    Args:
        images: (N, C, H, W). Values that depend on them have N as an additional first dimension.
    """
    values: dict[fx.Node, Any] = {}
    done: set[fx.Node] = set()
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            values[node] = images.unsqueeze(1)
        elif node.op == "call_function":
            with torch.no_grad():
                args, value = _call(graph_module, node, values)
            values[node] = value
            yield node, args, value
            done.add(node)
            for source in node.all_input_nodes:
                if done.issuperset(source.users):
                    values.pop(source, None)


def _call(graph_module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> tuple[tuple[Any, ...], Any]:
    sources = list(dict.fromkeys(node.all_input_nodes))

    def single(*given: Any) -> Any:
        at = dict(zip(sources, given, strict=True))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), at.__getitem__)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    given = [constant(graph_module, source) if is_constant(source) else values[source] for source in sources]
    moving = tuple(None if is_constant(source) else 0 for source in sources)
    value = torch.vmap(single, in_dims=moving)(*given) if 0 in moving else single(*given)
    at = dict(zip(sources, given, strict=True))
    return fx.node.map_arg(node.args, at.__getitem__), value  # type: ignore[return-value]
