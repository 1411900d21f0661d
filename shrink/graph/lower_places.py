"""Rewrites of padding, slices, concatenations and resizes: they move numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import fx

from shrink.graph.edit import KEEP_FLOAT, NOTHING, add_constant, call
from shrink.graph.lower_selections import MOST_PARTS, are_few, joined, taken

aten = torch.ops.aten


def pad_with(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Padding with another number than 0 as a concatenation with a constant, which XNNPACK takes; it has no PADV2."""
    given: list[Any] = [*node.args, 0.0]
    found, counts, number = given[:3]
    if number == 0 or min(counts) < 0 or node.meta["dtype"] is not torch.float32:
        return None
    shape = list(found.meta["shape"])
    for place in range(0, len(counts), 2):
        axis = len(shape) - 1 - place // 2
        parts = [found]
        for count, at in ((counts[place], 0), (counts[place + 1], 2)):
            if count:
                with node.graph.inserting_before(node):
                    size = [*shape[:axis], count, *shape[axis + 1 :]]
                    parts.insert(at, add_constant(graph_module, f"{node.name}_edge", torch.full(size, float(number))))
        if len(parts) > 1:
            found, shape[axis] = call(node, aten.cat.default, parts, axis), shape[axis] + sum(counts[place : place + 2])
    return found  # type: ignore[no-any-return]


def every_other(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """x[start::step] as the start-th of every step numbers: XNNPACK takes slices without steps only.

    Zeros behind an axis that is no multiple of the step are never among them.
    """
    given: list[Any] = [*node.args]
    source, axis, start, _, step = given + _SLICE[len(given) :]
    shape = node.meta["shape"]
    size, axis = source.meta["shape"][axis], axis % len(shape)
    first = start or 0
    if step == 1 or not 0 <= first < step or shape[axis] != -(-size // step):
        return None
    return every(node, source, list(source.meta["shape"]), axis, step, first)


def stretch(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Copies along axes as a sum with next to nothing, in float: in sums XNNPACK stretches; it has no BROADCAST_TO."""
    source: Any = node.args[0]
    shape, size = list(node.meta["shape"]), list(source.meta["shape"])
    size = [1] * (len(shape) - len(size)) + size
    if node.meta["dtype"] is not torch.float32 or len(shape) > MOST_AXES or shape == size:
        return None
    if len(size) != len(source.meta["shape"]):
        source = call(node, aten.reshape.default, source, size)
    ones = [new if new != old else 1 for new, old in zip(shape, size, strict=True)]
    uneven = NOTHING * (1 + torch.arange(math.prod(ones)).reshape(ones) % 2)  # equal ones become one and a BROADCAST_TO
    with node.graph.inserting_before(node):
        nothing = add_constant(graph_module, f"{node.name}_nothing", uneven)
    found = call(node, aten.add.Tensor, source, nothing)
    found.meta[KEEP_FLOAT] = True
    return found


MOST_AXES = 6  # that XNNPACK stretches over


_SLICE: list[Any] = [None, 0, None, None, 1]  # defaults of slice(x, axis, start, end, step)


def every(node: fx.Node, source: fx.Node, shape: list[int], axis: int, step: int, first: int = 0) -> fx.Node:
    """The first-th of every `step` numbers along an axis of a value of that shape."""
    groups = -(-shape[axis] // step)
    if missing := groups * step - shape[axis]:
        source = call(node, aten.constant_pad_nd.default, source, [0, 0] * (len(shape) - 1 - axis) + [0, missing], 0.0)
    apart = [*shape[:axis], groups, step, *shape[axis + 1 :]]
    return call(node, aten.select.int, call(node, aten.reshape.default, source, apart), axis + 1, first)


def short_cats(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A concatenation of many parts as one of few that goes on from what an earlier one has joined.

    A dense block joins all that came before once for every layer; each begins with what the one before it joined. A
    lonely long one stays: the converter would join again what nobody else reads apart. `export.joins` sees to it.
    """
    parts: list[Any] = list(node.args[0])  # type: ignore[arg-type]
    axis = axis_of(node)
    known = _joined_before(node, parts, axis) if len(parts) > MOST_PARTS else None
    if known is None or len(parts) - known[1] >= MOST_PARTS:
        return None
    new = call(node, aten.cat.default, [known[0], *parts[known[1] :]], axis)
    new.meta["joined"] = (node.args[0], axis)
    return new


def axis_of(cat: fx.Node) -> int:
    """Along which a concatenation or stack joins, as it was given; it may count from the end."""
    return cat.args[1] if len(cat.args) > 1 else cat.kwargs.get("dim", 0)  # type: ignore[return-value]


def _joined_before(node: fx.Node, parts: list[Any], axis: int) -> tuple[fx.Node, int] | None:
    """The longest concatenation before a node that joins the first of these parts alone, and how many they are."""
    found = None
    for other in takewhile(lambda before: before is not node, node.graph.nodes):
        if other.target is aten.cat.default:
            given, along = other.meta.get("joined", (other.args[0], axis_of(other)))
            begins = along == axis and len(given) < len(parts) and list(given) == parts[: len(given)]
            if begins and (found is None or len(given) > found[1]):
                found = (other, len(given))
    return found


def piece(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """One part of a split, chunk or unbind as a slice or selection of its own."""
    parts: Any = node.args[0]
    if parts.target not in PARTS:
        return None
    source, *rest = parts.args
    axis = rest[PARTS[parts.target]] if len(rest) > PARTS[parts.target] else parts.kwargs.get("dim", 0)
    index: Any = node.args[1]
    if parts.target is aten.unbind.int:
        return call(node, aten.select.int, source, axis, index)
    size = node.meta["shape"][axis]
    start = index * rest[0] if isinstance(rest[0], int) else sum(rest[0][:index])
    if parts.target is aten.chunk.default:
        start = index * -(-source.meta["shape"][axis] // rest[0])
    return call(node, aten.slice.Tensor, source, axis, start, start + size)


def nearest(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A nearest resize as copies of every row and column, some of which are cut out again, or else as a selection.

    RESIZE_NEAREST_NEIGHBOR takes other ones than PyTorch by broken ratios. Which PyTorch takes is asked of it. XNNPACK
    has neither that op nor selections.
    """
    found: Any = node.args[0]
    _, _, height, width = found.meta["shape"]
    numbers = torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)
    read = node.target(numbers, *node.args[1:], **node.kwargs)[0, 0].long()  # type: ignore[operator]
    rows, columns = read[:, 0] // width, read[0] % width
    down, right = _copies_of(rows, height), _copies_of(columns, width)
    if down is not None and right is not None:
        return _repeated(node, found, down, right)
    if are_few(rows, height) and are_few(columns, width):
        return taken(node, taken(node, found, 2, rows), 3, columns)
    for axis, places in ((2, rows), (3, columns)):
        with node.graph.inserting_before(node):
            held = add_constant(graph_module, f"{node.name}_places", places)
        found = call(node, aten.index_select.default, found, axis, held)
    return found  # type: ignore[no-any-return]


def _repeated(node: fx.Node, image: fx.Node, down: _Copies, right: _Copies) -> fx.Node:
    """(N, C, H, W) with every row and every column so many times, but for those that are cut out again.

    Where the channels lie last, a pixel beside itself is a pixel with its channels twice, and a row below itself a row
    that is twice as long: whole blocks are copied. Joining the columns and rows one by one took 1.9 times as long.
    """
    count, channels, height, width = image.meta["shape"]
    rows, columns = height * down.times, width * right.times
    last = call(node, aten.permute.default, image, [0, 2, 3, 1])
    wide = _copies(node, last, 3, right.times)
    row = call(node, aten.reshape.default, wide, [count, height, columns * channels])
    tall = _copies(node, row, 2, down.times)
    whole = call(node, aten.reshape.default, tall, [count, rows, columns, channels])
    kept = _kept(node, _kept(node, whole, 1, down.kept, rows), 2, right.kept, columns)
    return call(node, aten.permute.default, kept, [0, 3, 1, 2])


def _copies(node: fx.Node, value: fx.Node, axis: int, times: int) -> fx.Node:
    """A value beside itself; many times in steps, as concatenations are short."""
    while times > 1:
        step = next((few for few in range(MOST_PARTS, 1, -1) if times % few == 0), times)
        value, times = call(node, aten.cat.default, [value] * step, axis), times // step
    return value


@dataclass(frozen=True, slots=True)
class _Copies:
    """Every place so many times, one after the other, and the stretches of them that are kept."""

    times: int
    kept: list[tuple[int, int]]  # start and end


def _copies_of(places: torch.Tensor, count: int) -> _Copies | None:
    """How those places are had of `count`; None: not in order, or in too many stretches."""
    often = torch.bincount(places, minlength=count)
    if not often.all() or not torch.equal(places, torch.arange(count).repeat_interleave(often)):
        return None
    times = int(often.max())
    kept: list[tuple[int, int]] = []
    for place, copies in enumerate(often.tolist()):
        start = place * times
        if kept and kept[-1][1] == start:
            start = kept.pop()[0]
        kept.append((start, place * times + copies))
    return _Copies(times, kept) if len(kept) <= MOST_PARTS else None


def _kept(node: fx.Node, value: fx.Node, axis: int, stretches: list[tuple[int, int]], size: int) -> fx.Node:
    return value if stretches == [(0, size)] else joined(node, value, axis, stretches)


PARTS = {aten.unbind.int: 0, aten.split.Tensor: 1, aten.split_with_sizes.default: 1, aten.chunk.default: 1}
"""Ops that give several tensors -> where the axis stands behind their first argument."""
