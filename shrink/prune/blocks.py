"""Whole residual blocks: what stands between a sum and the shortcut that it adds can go, and the sum is the shortcut.

A branch is found in the graph, however it is written: a block of a residual network, the attention or the hidden
layers of a transformer. What it costs is measured at the answers, as for channels.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.batch import Walk
from shrink.graph.clean import tidy
from shrink.graph.edit import is_constant
from shrink.graph.shapes import annotate_shapes, input_shape
from shrink.prune.groups import Group, is_kept, weighted
from shrink.prune.measure import on_trial
from shrink.prune.trace import shape_of

aten = torch.ops.aten


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A branch that a shortcut goes round."""

    name: str  # path that its layers share
    total: str  # name of the node that adds branch and shortcut
    shortcut: str
    last: str  # the last of the branch
    inside: frozenset[str]  # nodes that nobody else reads, constants and the sum among them


def find_blocks(graph_module: fx.GraphModule, *, keep: Collection[str] = ()) -> tuple[Block, ...]:
    """All branches with layers in them, in order.

    Args:
        keep: layers that stay, by the path of the module; so do branches that have one of them inside.
    """
    adds = [node for node in graph_module.graph.nodes if node.target is aten.add.Tensor]
    return tuple(block for add in adds if (block := _block(graph_module, add, keep)) is not None)


def drop_blocks(graph_module: fx.GraphModule, blocks: Iterable[Block]) -> None:
    """Let the readers of each sum read the shortcut, in place; constants of the branch go, too."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    for block in blocks:
        total = nodes[block.total]
        shortcut: Any = next(source for source in total.all_input_nodes if source.name != block.last)
        for user in list(total.users):
            if user.target is aten.relu.default and shortcut.target is aten.relu.default:  # once is enough
                user.replace_all_uses_with(shortcut)
        total.replace_all_uses_with(shortcut)
    tidy(graph_module)
    annotate_shapes(graph_module, torch.zeros(input_shape(graph_module)))


def private(groups: Iterable[Group], graph_module: fx.GraphModule, block: Block) -> list[Group]:
    """The groups that go with a block: all they take anything from lies inside."""
    inside = {str(n.target) for n in graph_module.graph.nodes if is_constant(n) and n.name in block.inside}
    return [group for group in groups if all(target in inside for target, _ in group.constants)]


def costs_at_the_answers(
    graph_module: fx.GraphModule,
    blocks: Iterable[Block],
    images: Tensor,
    *,
    track: Callable[[Iterable[Block]], Iterable[Block]] = iter,
) -> Mapping[Block, float]:
    """Divergence of the answers from those of the whole model if a block says the same about every image.

    Args:
        images: (N, C, H, W), run at once.
    """
    nodes = {node.name: node for node in graph_module.graph.nodes}

    def tries(walk: Walk, block: Block) -> list[Walk]:
        changed, last = walk.fork({}), nodes[block.last]
        changed.values[last] = _mean(last, walk.values[last], graph_module, block)
        return [changed]

    first = {block: nodes[block.total] for block in blocks}
    costs = on_trial(graph_module, first, tries, images, track=track)
    return {block: cost for block, (cost,) in costs.items()}


def _block(graph_module: fx.GraphModule, add: fx.Node, keep: Collection[str]) -> Block | None:
    sources: list[Any] = add.all_input_nodes
    if len(sources) != 2 or len(add.args) != 2 or add.kwargs or shape_of(sources[0]) != shape_of(sources[1]):
        return None
    for shortcut, last in (sources, reversed(sources)):
        between = _between(shortcut, last)
        if between and all(user in between or user is add for node in between for user in node.users):
            constants = {n for n in graph_module.graph.nodes if is_constant(n) and between.issuperset(n.users)}
            layers = [node for node in weighted(graph_module) if node in between]
            names = [node.meta.get("layer", "") or node.name for node in layers]
            if layers and not any(is_kept(node, keep) for node in layers):
                inside = frozenset(node.name for node in (between | constants | {add}))
                return Block(_shared_path(names), add.name, shortcut.name, last.name, inside)
    return None


def _between(first: fx.Node, last: fx.Node) -> set[fx.Node]:
    """The nodes on paths from one to the other, without the first; empty if there is no path."""
    above: set[fx.Node] = set()
    open_nodes = [last]
    while open_nodes:
        node = open_nodes.pop()
        if node not in above and node is not first:
            above.add(node)
            open_nodes += node.all_input_nodes
    found = {first}
    for node in first.graph.nodes:  # in order: sources come before their readers
        if node in above and any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found - {first} if last in found else set()


def _shared_path(names: list[str]) -> str:
    shared = os.path.commonpath([name.replace(".", "/") for name in names]) if len(names) > 1 else ""
    return shared.replace("/", ".") or names[0]


def _mean(last: fx.Node, value: Tensor, graph_module: fx.GraphModule, block: Block) -> Tensor:
    """What a branch says on average: a number per channel, which the biases of later layers can make up for.

    Channels are where the last layer of the branch has them.
    """
    layers = [node for node in weighted(graph_module) if node.name in block.inside]
    axis = 1 if layers[-1].target is aten.conv2d.default else len(shape_of(last)) - 1
    if shape_of(last)[axis] != shape_of(layers[-1].args[1])[0]:
        return torch.zeros_like(value)
    others = [i for i in range(value.dim()) if i != axis + 1]
    return value.mean(others, keepdim=True).expand_as(value)
