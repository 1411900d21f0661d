"""Which channels of a graph may be scaled together without changing its answer.

Every output channel of an op with weights gets a label, and the labels travel with the values: a view
of a value is run on its labels, so a reshape, a split into heads or a channel shuffle is followed
exactly. Where values are added, their labels become one. An op that scaling would not pass through
freezes the labels it reads. What stays free can be scaled in the weights that make a channel, and
scaled back in the weights that read it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.convolution import convolution
from shrink.graph.edit import is_constant

aten = torch.ops.aten
NOTHING = -1
"""Label of a number that is 0 whatever the scale: padding."""


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of a graph by label, int64; labels that must share a scale are equal.

    Attributes:
        free: (labels,) bool, whether a label may be scaled.
        made: op -> (O,) of its output channels, which its weight and bias scale.
        read: op -> (C,) of its input channels, which its weight scales back.
        values: node -> labels of its output, in its shape.
    """

    free: Tensor
    made: Mapping[str, Tensor]
    read: Mapping[str, Tensor]
    values: Mapping[str, Tensor]


def channels(graph: fx.Graph) -> Channels:
    """Follow the channels of every op with weights through a clean graph that has shapes in its meta."""
    trace = _Trace()
    for node in graph.nodes:
        trace.visit(node)
    roots = torch.tensor([*map(trace.root, range(trace.count)), NOTHING])  # a label of -1 reads the last
    free = torch.ones(trace.count, dtype=torch.bool)
    free[roots[sorted(trace.frozen)]] = False
    tables = ({name: roots[labels] for name, labels in t.items()} for t in (trace.made, trace.read, trace.values))
    return Channels(free[roots[:-1]], *tables)


class _Trace:
    """Labels found so far; `parents` is a forest whose roots stand for labels made one."""

    def __init__(self) -> None:
        self.made: dict[str, Tensor] = {}
        self.read: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        self.parts: dict[str, Sequence[Tensor]] = {}  # of nodes whose output is a tuple
        self.frozen: set[int] = set()
        self.parents: list[int] = []

    @property
    def count(self) -> int:
        return len(self.parents)

    def visit(self, node: fx.Node) -> None:
        rule = RULES.get(node.target) if node.op == "call_function" else None
        labels = rule(self, node) if rule else None
        if labels is None:
            self.freeze(node.all_input_nodes)
        elif isinstance(labels, Tensor):
            self.values[node.name] = labels
        else:
            self.parts[node.name] = labels

    def root(self, label: int) -> int:
        while self.parents[label] != label:
            self.parents[label] = label = self.parents[self.parents[label]]
        return label

    def unite(self, a: Tensor, b: Tensor) -> None:
        base = self.count + 1  # both labels in one number, counted from NOTHING
        pairs = _distinct((a - NOTHING) * base + (b - NOTHING))
        for pair in pairs.flatten().tolist():
            one, other = pair // base + NOTHING, pair % base + NOTHING
            if NOTHING not in (one, other):
                self.parents[self.root(one)] = self.root(other)

    def freeze(self, nodes: Iterable[fx.Node]) -> None:
        for node in nodes:
            for labels in self.parts.get(node.name, [self.values[node.name]] if node.name in self.values else []):
                self.frozen.update(_distinct(labels).flatten().tolist())
        self.frozen.discard(NOTHING)

    def of(self, node: object) -> Tensor | None:
        return self.values.get(node.name) if isinstance(node, fx.Node) else None

    def make(self, node: fx.Node, count: int, axis: int) -> Tensor:
        """New labels for the output channels of an op with weights."""
        self.made[node.name] = torch.arange(self.count, self.count + count)
        self.parents.extend(self.made[node.name].tolist())
        shape: tuple[int, ...] = node.meta["shape"]
        return spread(self.made[node.name], axis, len(shape)).expand(shape)

    def consume(self, node: fx.Node, source: fx.Node, axis: int) -> None:
        """Let an op with weights read the channels of its input, if they lie along `axis`."""
        labels = self.of(source)
        found = None if labels is None else along(labels, axis)
        if found is None:
            self.freeze([source])
        else:
            self.read[node.name] = found


def _distinct(labels: Tensor) -> Tensor:
    """Labels without what repeats along an axis: most feature maps have one label per channel."""
    for axis in range(labels.dim()):
        first = labels.narrow(axis, 0, 1)
        if bool((labels == first).all()):
            labels = first
    return labels


def spread(labels: Tensor, axis: int, rank: int) -> Tensor:
    """(C,) along one axis of as many as a value has, to be expanded to its shape."""
    return labels.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def along(labels: Tensor, axis: int) -> Tensor | None:
    """(C,) labels, if they are the same all over the other axes but for padding; else None."""
    rows = labels.movedim(axis, 0).flatten(1)  # (C, rest)
    most = rows.amax(1)
    return most if bool(((rows == most[:, None]) | (rows == NOTHING)).all()) else None


Rule = Callable[[_Trace, fx.Node], Tensor | Sequence[Tensor] | None]
"""Labels of the output of a node; None if a scale does not pass through it, which freezes what it reads."""


def _convolution(trace: _Trace, node: fx.Node) -> Tensor | None:
    read = convolution(node)
    if not is_constant(read.weight):
        return None
    trace.consume(node, read.x, 1)
    return trace.make(node, read.weight.meta["shape"][0], 1)


def _linear(trace: _Trace, node: fx.Node) -> Tensor | None:
    source, weight = node.args[:2]
    if not (is_constant(weight) and isinstance(weight, fx.Node) and isinstance(source, fx.Node)):
        return None
    trace.consume(node, source, -1)
    return trace.make(node, weight.meta["shape"][0], -1)


def _layer_norm(trace: _Trace, node: fx.Node) -> Tensor | None:
    """Its own weight, or the ones in place of none, and bias may be scaled; what it reads may not."""
    weights, normalized = node.args[2:4], _arguments(node)[1]
    trace.freeze(node.all_input_nodes)
    if not all(n is None or is_constant(n) for n in weights) or len(normalized) != 1:
        return None
    return trace.make(node, node.meta["shape"][-1], -1)


def _through(trace: _Trace, node: fx.Node) -> Tensor | None:
    """f(s x) = s f(x) for s > 0, number by number; other operands are constants."""
    return trace.of(node.args[0])


def _sum(trace: _Trace, node: fx.Node) -> Tensor | None:
    a, b = (trace.of(n) for n in node.args[:2])
    if a is None or b is None:
        return None
    shape = node.meta["shape"]
    a, b = a.expand(shape), b.expand(shape)
    trace.unite(a, b)
    return torch.maximum(a, b)


def _product(trace: _Trace, node: fx.Node) -> Tensor | None:
    """The larger factor carries the scale; the other, a gate or a constant, must keep its own."""
    factors = sorted((n for n in node.args[:2] if isinstance(n, fx.Node)), key=lambda n: -_numel(n))
    labels = trace.of(factors[0])
    trace.freeze(factors[1:])
    return None if labels is None else labels.expand(node.meta["shape"])


def _numel(node: fx.Node) -> int:
    return 0 if is_constant(node) else torch.Size(node.meta["shape"]).numel()


def _matrix_product(trace: _Trace, node: fx.Node) -> Tensor | None:
    """Columns of the second factor pass through, as the values of an attention do; the first keeps its scale."""
    labels = trace.of(node.args[1])
    if labels is None or not bool((labels == labels[..., :1, :]).all()):
        return None
    trace.freeze(n for n in node.args[:1] if isinstance(n, fx.Node))
    return labels[..., :1, :].expand(node.meta["shape"])


def _window(trace: _Trace, node: fx.Node) -> Tensor | None:
    """A mean or maximum over places of one channel."""
    labels = trace.of(node.args[0])
    found = None if labels is None else along(labels, 1)
    shape = node.meta["shape"]
    if found is None or not (node.target in POOLS or _is_spatial(node)):
        return None
    return spread(found, 1, len(shape)).expand(shape)


def _is_spatial(node: fx.Node) -> bool:
    """Whether a mean is over the places (2, 3) of (1, C, H, W)."""
    source, dims = _arguments(node)[:2]
    return len(source.meta["shape"]) == 4 and {d % 4 for d in dims} <= {2, 3}


def _arguments(node: fx.Node) -> list[Any]:
    return [*node.args]


def _view(trace: _Trace, node: fx.Node) -> Tensor | Sequence[Tensor] | None:
    """An op that only moves numbers, run on the labels."""
    move: Any = node.target
    first, *others = _arguments(node)
    labels = [trace.of(n) for n in first] if isinstance(first, Sequence) else trace.of(first)
    if labels is None or (isinstance(labels, list) and any(found is None for found in labels)):
        return None
    moved: Tensor | Sequence[Tensor] = move(labels, *others)
    return moved


def _part(trace: _Trace, node: fx.Node) -> Tensor | None:
    source, index = _arguments(node)
    return trace.parts[source.name][index] if source.name in trace.parts else None


def _padding(trace: _Trace, node: fx.Node) -> Tensor | None:
    labels = trace.of(node.args[0])
    value = node.args[2] if len(node.args) > 2 else 0
    return None if labels is None or value else aten.constant_pad_nd.default(labels, node.args[1], NOTHING)


POOLS = frozenset({aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default})
VIEWS = (
    aten.reshape.default, aten.view.default, aten.flatten.using_ints, aten.permute.default, aten.transpose.int,
    aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.select.int, aten.slice.Tensor, aten.cat.default,
    aten.expand.default, aten.clone.default, aten.contiguous.default, aten.pixel_unshuffle.default, aten.roll.default,
    aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int, aten.unflatten.int,
    aten.flip.default,
)  # fmt: skip
RULES: Mapping[Any, Rule] = {
    aten.conv2d.default: _convolution,
    aten.linear.default: _linear,
    aten.layer_norm.default: _layer_norm,
    aten.relu.default: _through,
    aten.leaky_relu.default: _through,
    aten.neg.default: _through,
    aten.add.Tensor: _sum,
    aten.sub.Tensor: _sum,
    aten.mul.Tensor: _product,
    aten.matmul.default: _matrix_product,
    aten.bmm.default: _matrix_product,
    aten.mean.dim: _window,
    aten.constant_pad_nd.default: _padding,
    operator.getitem: _part,
    **dict.fromkeys(POOLS, _window),
    **dict.fromkeys(VIEWS, _view),
}
