"""Windows over an image, written as slices, sums and concatenations.

No runtime's fast path takes them as they are: litert-torch 0.10 writes sliding windows as gathers and scatters, and
cannot write those of HaloNet and VOLO at all; padding by reflection and padded maxima of numbers of either sign cut
XNNPACK's graph in pieces. All rewrites are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from shrink.graph.convolution import pair
from shrink.graph.edit import call, replace
from shrink.graph.shapes import shape_of

aten = torch.ops.aten
MOST_COPIES = 4
"""Rows or columns of padding on a side, each of which takes a slice."""

Rewrite = Callable[[fx.Node], "fx.Node | None"]


def write_windows(graph_module: fx.GraphModule) -> int:
    """Rewrite what WINDOWS has, in place; returns how often."""
    count = 0
    for node in list(graph_module.graph.nodes):
        rewrite = WINDOWS.get(node.target)
        new = rewrite(node) if rewrite is not None and node.meta.get("dtype") is torch.float32 else None
        if new is not None:
            replace(node, new)
            count += 1
    return count


def _slice(at: fx.Node, x: fx.Node, axis: int, start: int, end: int, step: int = 1) -> fx.Node:
    """x[start:end:step]; the start and the steps apart, for that is how other rules know the latter."""
    found = call(at, aten.slice.Tensor, x, axis, start, end)
    return found if step == 1 else call(at, aten.slice.Tensor, found, axis, 0, end - start, step)


def _joined(at: fx.Node, parts: list[fx.Node], axis: int) -> fx.Node:
    return call(at, aten.cat.default, parts, axis) if len(parts) > 1 else parts[0]


def _windows(node: fx.Node) -> fx.Node:
    """x.unfold(axis, size, step): the windows side by side along the axis, their numbers along a new last one."""
    args: tuple[Any, ...] = node.args
    x, axis, size, step = args
    shape = shape_of(x)
    axis, rank = axis % len(shape), len(shape)
    order = [*(i for i in range(rank) if i != axis), axis]
    starts = range(0, shape[axis] - size + 1, step)
    parts = [
        call(node, aten.unsqueeze.default, call(node, aten.permute.default, part, order), axis)
        for part in (_slice(node, x, axis, start, start + size) for start in starts)
    ]
    return _joined(node, parts, axis)


def _columns(node: fx.Node) -> fx.Node:
    """im2col: every tap's numbers, (N, C * taps, places), channel by channel.

    Rows of taps are joined along one axis and then along another: XNNPACK joins five at most, and along one axis the
    converter would join all of them at once.
    """
    args: tuple[Any, ...] = node.args
    x, kernel, dilation, padding, stride = args
    batch, channels, high, wide = shape_of(x)
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (pair(value) for value in (kernel, dilation, padding, stride))
    if ph or pw:
        x = call(node, aten.constant_pad_nd.default, x, [pw, pw, ph, ph], 0.0)
    rows, columns = (high + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (wide + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    lines = []
    for i in range(kh):
        row, taps = _slice(node, x, 2, i * dh, i * dh + sh * (rows - 1) + 1, sh), []
        for j in range(kw):
            tap = _slice(node, row, 3, j * dw, j * dw + sw * (columns - 1) + 1, sw)
            taps.append(call(node, aten.reshape.default, tap, [batch, channels, 1, 1, rows * columns]))
        lines.append(_joined(node, taps, 3))
    joined = _joined(node, lines, 2)
    return call(node, aten.reshape.default, joined, [batch, channels * kh * kw, rows * columns])


def _image(node: fx.Node) -> fx.Node | None:
    """col2im: every tap added where it was taken; places a stride apart are summed together, and then interleaved."""
    args: tuple[Any, ...] = node.args
    x, size, kernel, dilation, padding, stride = args
    (high, wide), (kh, kw), (ph, pw), (sh, sw) = (pair(value) for value in (size, kernel, padding, stride))
    if pair(dilation) != (1, 1) or kh < sh or kw < sw or len(shape_of(x)) != 3:
        return None
    batch, channels = shape_of(x)[0], shape_of(x)[1] // (kh * kw)
    rows, columns = (high + 2 * ph - kh) // sh + 1, (wide + 2 * pw - kw) // sw + 1
    down, across = -(-(high + 2 * ph) // sh), -(-(wide + 2 * pw) // sw)  # places of one phase
    x = call(node, aten.reshape.default, x, [batch, channels, kh * kw, rows, columns])

    def phase(r: int, c: int) -> fx.Node:
        """What falls on rows r, r + stride, ... and columns c, c + stride, ..."""
        total: fx.Node | None = None
        for i, j in ((i, j) for i in range(r, kh, sh) for j in range(c, kw, sw)):
            tap = call(node, aten.select.int, x, 2, i * kw + j)
            above, before = i // sh, j // sw
            pads = [before, across - columns - before, above, down - rows - above]
            tap = call(node, aten.constant_pad_nd.default, tap, pads, 0.0) if any(pads) else tap
            total = tap if total is None else call(node, aten.add.Tensor, total, tap)
        assert total is not None, "every phase has a tap: the kernel is as wide as the stride"
        return total

    lines = []
    for r in range(sh):
        parts = [call(node, aten.unsqueeze.default, phase(r, c), 4) for c in range(sw)]
        line = _joined(node, parts, 4)
        lines.append(call(node, aten.reshape.default, line, [batch, channels, down, 1, across * sw]))
    whole = call(node, aten.reshape.default, _joined(node, lines, 3), [batch, channels, down * sh, across * sw])
    return _slice(node, _slice(node, whole, 2, ph, ph + high), 3, pw, pw + wide)


def _far_maximum(node: fx.Node) -> fx.Node | None:
    """A maximum over numbers that lie apart as one of slices, along rows and then along columns."""
    args: list[Any] = [*node.args]
    x, kernel, stride, padding, dilation, ceil = args + [[], 0, 1, False][len(args) - 2 :]
    if pair(dilation) == (1, 1) or pair(padding) != (0, 0) or ceil:
        return None
    sizes = zip((2, 3), shape_of(node)[2:], pair(kernel), pair(stride or kernel), pair(dilation), strict=True)
    for axis, places, taps, step, apart in sizes:
        starts = range(0, taps * apart, apart)
        first, *others = [_slice(node, x, axis, start, start + step * (places - 1) + 1, step) for start in starts]
        x = first
        for part in others:
            x = call(node, aten.maximum.default, x, part)
    return x  # type: ignore[no-any-return]


def _mirrored(count: int, size: int) -> tuple[list[int], list[int]]:
    return list(range(count, 0, -1)), [size - 2 - i for i in range(count)]


def _repeated(count: int, size: int) -> tuple[list[int], list[int]]:
    return [0] * count, [size - 1] * count


def _around(count: int, size: int) -> tuple[list[int], list[int]]:
    return list(range(size - count, size)), list(range(count))


Edges = Callable[[int, int], "tuple[list[int], list[int]]"]
"""Rows before and behind an axis of that size, for that much padding."""

MODES: Mapping[str, Edges] = {"reflect": _mirrored, "replicate": _repeated, "circular": _around}


def surround(node: fx.Node, x: fx.Node, pads: Sequence[int], edges: Edges) -> fx.Node:
    """Put rows of a value around it; `pads` as PyTorch takes them, the last axis first."""
    rank = len(shape_of(x))
    for place in range(0, len(pads), 2):
        axis = rank - 1 - place // 2
        size = shape_of(x)[axis]
        sides = [edges(pads[place], size)[0], edges(pads[place + 1], size)[1]]
        before, behind = ([_slice(node, x, axis, i, i + 1) for i in rows] for rows in sides)
        if before or behind:
            x = call(node, aten.cat.default, [*before, x, *behind], axis)
    return x


def _padded(node: fx.Node) -> fx.Node | None:
    """Padding by reflection, with the last row, or with those of the other side, in slices."""
    args: tuple[Any, ...] = node.args
    x, pads, mode = args[0], args[1], (args[2] if len(args) > 2 else _MODE_OF.get(node.target, ""))
    if mode not in MODES or not 0 <= min(pads) <= max(pads) <= MOST_COPIES:
        return None
    return surround(node, x, pads, MODES[mode])


_MODE_OF: Mapping[Any, str] = {
    aten.reflection_pad1d.default: "reflect",
    aten.reflection_pad2d.default: "reflect",
    aten.replication_pad2d.default: "replicate",
}


WINDOWS: Mapping[Any, Rewrite] = {
    aten.unfold.default: _windows,
    aten.im2col.default: _columns,
    aten.col2im.default: _image,
    aten.max_pool2d.default: _far_maximum,
    aten.pad.default: _padded,
    **dict.fromkeys(_MODE_OF, _padded),
}
