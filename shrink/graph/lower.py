"""Rewrites of ops into ones that a runtime computes in int8, each exact in float.

One row per ATen op: the function emits the replacement before the node and returns it. What is
rewritten for a target is that target's data (`targets/*.toml`, key `lower`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import fx

from shrink.graph.clean import tidy
from shrink.graph.convolution import convolution
from shrink.graph.edit import add_constant, call, constant, replace, scalar_like
from shrink.graph.factors import fold_factors
from shrink.graph.pixels import SEQUENCE, align_to_pixels
from shrink.graph.shapes import annotate_shapes, input_shape

aten = torch.ops.aten
PIXEL_GRID, PIXEL_GRID_ALWAYS = "pixel_grid", "pixel_grid_always"
Rewrite = Callable[[fx.GraphModule, fx.Node], fx.Node | None]


def lower(
    graph_module: fx.GraphModule,
    rules: Collection[str],
    *,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
) -> tuple[str, ...]:
    """Apply the named rules in place.

    Args:
        rules: names from `RULES`, and "pixel_grid" or "pixel_grid_always", which takes patch embeddings, too.
        normalization: mean and std per channel of the image input, which "pixel_grid" needs.

    Returns:
        One line per rule that fired, such as "hardswish -> x * relu6(x + 3) / 6, 14 times".
    """
    wanted = {target: (name, rewrite) for name in rules if name in RULES for target, rewrite in RULES[name].items()}
    fired: dict[str, int] = {}
    for node in list(graph_module.graph.nodes):
        if node.target not in wanted:
            continue
        name, rewrite = wanted[node.target]
        new = rewrite(graph_module, node)
        if new is not None:
            new.meta.update(shape=node.meta["shape"], dtype=node.meta["dtype"])  # rewrites of its readers ask for them
            replace(node, new)
            fired[name] = fired.get(name, 0) + 1
    lines = [f"{name}: {DESCRIPTIONS[name]}, {count} times" for name, count in fired.items()]
    _settle(graph_module)
    if folded := fold_factors(graph_module):
        lines.append(f"factors: constant products moved into the next weights, {folded} times")
    tidy(graph_module)
    grid = next((rule for rule in (PIXEL_GRID, PIXEL_GRID_ALWAYS) if rule in rules), None)
    patches = grid == PIXEL_GRID_ALWAYS
    if grid and normalization is not None and align_to_pixels(graph_module, *normalization, patches=patches):
        lines.append(f"{PIXEL_GRID}: the first convolution reads grey levels 0..255; the codes of the image are exact")
        _settle(graph_module)
    return tuple(lines)


def _settle(graph_module: fx.GraphModule) -> None:
    """Bring the graph's code and the shapes of its new nodes up to date."""
    tidy(graph_module)
    annotate_shapes(graph_module, torch.zeros(input_shape(graph_module)))


def _six_times_hard_sigmoid(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    three = scalar_like(graph_module, node, f"{node.name}_three", 3.0)
    return call(node, aten.hardtanh.default, call(node, aten.add.Tensor, node.args[0], three), 0.0, 6.0)


def hard_sigmoid(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """relu6(x + 3) / 6: XNNPACK has no hard-sigmoid, and takes add, clamp and multiply in int8."""
    sixth = scalar_like(graph_module, node, f"{node.name}_sixth", 1.0 / 6.0)
    return call(node, aten.mul.Tensor, _six_times_hard_sigmoid(graph_module, node), sixth)


def hard_swish(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x * relu6(x + 3) / 6: XNNPACK runs HARD_SWISH in float only."""
    sixth = scalar_like(graph_module, node, f"{node.name}_sixth", 1.0 / 6.0)
    product = call(node, aten.mul.Tensor, node.args[0], _six_times_hard_sigmoid(graph_module, node))
    return call(node, aten.mul.Tensor, product, sixth)


def silu(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x * sigmoid(x): both are int8 in XNNPACK."""
    return call(node, aten.mul.Tensor, node.args[0], call(node, aten.sigmoid.default, node.args[0]))


def pool_to_mean(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A global average pool is a mean over height and width; XNNPACK's AVERAGE_POOL is float only."""
    size: Any = node.args[1]
    if list(size) not in ([1], [1, 1]):
        return None
    return call(node, aten.mean.dim, node.args[0], [2, 3], True)


def pool_padding(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Pad with 0 before a maximum of values that are not negative.

    PyTorch pads with minus infinity, which TFLite writes as PADV2: XNNPACK does not take it, and the graph is cut
    in two there.
    """
    args: list[Any] = [*node.args]
    x, kernel, stride, padding, dilation, ceil = args + [[], 0, 1, False][len(args) - 2 :]
    high, wide = (padding, padding) if isinstance(padding, int) else (padding[0], padding[-1])
    if not (high or wide) or ceil or not _is_nonnegative(x):
        return None
    padded = call(node, aten.constant_pad_nd.default, x, [wide, wide, high, high], 0.0)
    return call(node, aten.max_pool2d.default, padded, kernel, stride or kernel, [0, 0], dilation)


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


def _is_nonnegative(node: fx.Node) -> bool:
    if node.target is aten.hardtanh.default:
        return bool(node.args[1] >= 0)  # type: ignore[operator]
    return node.target in (aten.relu.default, aten.sigmoid.default)


def attention(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """softmax(q k^T / sqrt(d)) v, Vaswani et al. 2017; the scale goes onto q, the smaller tensor."""
    args: tuple[Any, ...] = node.args
    options: dict[str, Any] = node.kwargs
    query, key, value, *rest = args
    mask = rest[0] if rest else options.get("attn_mask")
    causal = rest[2] if len(rest) > 2 else options.get("is_causal", False)
    if causal or options.get("enable_gqa", False) or (mask is not None and mask.meta["dtype"] == torch.bool):
        return None
    scale = options.get("scale") or query.meta["shape"][-1] ** -0.5
    factor = scalar_like(graph_module, node, f"{node.name}_scale", scale)
    scores = call(
        node,
        aten.matmul.default,
        call(node, aten.mul.Tensor, query, factor),
        call(node, aten.transpose.int, key, -2, -1),
    )
    if mask is not None:
        scores = call(node, aten.add.Tensor, scores, mask)
    return call(node, aten.matmul.default, call(node, aten.softmax.int, scores, -1), value)


def patches_to_linear(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A convolution over patches that do not overlap, whose result is read as a sequence, as a linear.

    ONNX Runtime's integer convolution must answer in codes, and a transformer's residual stream starts
    with this answer; its integer matrix product may answer in float.
    """
    conv = convolution(node)
    out, channels, *patch = conv.weight.meta["shape"]
    *_, height, width = conv.x.meta["shape"]
    high, wide = patch
    apart = conv.stride == (high, wide) and conv.padding == (0, 0) and conv.dilation == (1, 1) and conv.groups == 1
    whole = height % high == 0 and width % wide == 0
    as_sequence = all(user.target in SEQUENCE for user in node.users)
    if not (apart and whole and as_sequence and high * wide > 4):
        return None
    rows, columns = height // high, width // wide
    tiles = call(node, aten.reshape.default, conv.x, [1, channels, rows, high, columns, wide])
    moved = call(node, aten.permute.default, tiles, [0, 2, 4, 1, 3, 5])
    flat = call(node, aten.reshape.default, moved, [1, rows * columns, channels * high * wide])
    with node.graph.inserting_before(node):
        matrix = add_constant(graph_module, f"{node.name}_matrix", constant(graph_module, conv.weight).flatten(1))
    tokens = call(node, aten.linear.default, flat, matrix, conv.bias)
    tokens.meta.update(shape=(1, rows * columns, out), dtype=torch.float32)
    back = call(node, aten.permute.default, tokens, [0, 2, 1])
    return call(node, aten.reshape.default, back, [1, out, rows, columns])


MOST_TAPS = 25
"""Of a depthwise kernel: XNNPACK has quick ones for up to 25, and computes larger ones as general convolutions."""


def big_depthwise(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A depthwise convolution of many taps as the sum of some with fewer rows, 2 to 18 times faster in XNNPACK."""
    conv = convolution(node)
    _, width, rows, columns = conv.weight.meta["shape"]
    depthwise = width == 1 and conv.groups == conv.x.meta["shape"][1] > 1
    if not depthwise or rows * columns <= MOST_TAPS or columns > MOST_TAPS:
        return None
    high, wide = conv.padding
    padded = call(node, aten.constant_pad_nd.default, conv.x, [wide, wide, high, high], 0.0) if high or wide else conv.x
    total, each = None, MOST_TAPS // columns
    for first in range(0, rows, each):
        last = min(first + each, rows) - 1
        taps = constant(graph_module, conv.weight)[:, :, first : last + 1]
        with node.graph.inserting_before(node):
            weight = add_constant(graph_module, f"{node.name}_rows", taps.contiguous())
        reached = (node.meta["shape"][2] - 1) * conv.stride[0] + last * conv.dilation[0] + 1
        seen = call(node, aten.slice.Tensor, padded, 2, first * conv.dilation[0], reached)
        options = ([*conv.stride], [0, 0], [*conv.dilation], conv.groups)
        term = call(node, aten.conv2d.default, seen, weight, None if total else conv.bias, *options)
        total = call(node, aten.add.Tensor, total, term) if total else term
    return total


def number_to_tensor(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Write a number operand as a constant, so that it can be given codes; a division as a product."""
    position = next((i for i, arg in enumerate(node.args[:2]) if isinstance(arg, (int, float))), None)
    if position is None or node.kwargs or node.meta.get("dtype") is not torch.float32:
        return None
    args: list[Any] = list(node.args[:2])
    number = float(args[position])
    target = node.target
    if target is aten.div.Tensor:
        if position == 0:
            return None
        number, target = 1.0 / number, aten.mul.Tensor
    args[position] = scalar_like(graph_module, node, f"{node.name}_number", number)
    return call(node, target, *args)


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
    return _every(node, source, list(source.meta["shape"]), axis, step, first)


def _every(node: fx.Node, source: fx.Node, shape: list[int], axis: int, step: int, first: int = 0) -> fx.Node:
    """The first-th of every `step` numbers along an axis of a value of that shape."""
    groups = -(-shape[axis] // step)
    if missing := groups * step - shape[axis]:
        source = call(node, aten.constant_pad_nd.default, source, [0, 0] * (len(shape) - 1 - axis) + [0, missing], 0.0)
    apart = [*shape[:axis], groups, step, *shape[axis + 1 :]]
    return call(node, aten.select.int, call(node, aten.reshape.default, source, apart), axis + 1, first)


def pool_of_one(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """An average over one number is a slice with steps: XNNPACK takes no pool of one place."""
    given: list[Any] = [*node.args]
    found, kernel, stride, padding, _, _, divisor = given + _POOL[len(given) :]
    steps = [stride] * 2 if isinstance(stride, int) else list(stride or kernel) * (2 // len(stride or kernel))
    ones = all(size == 1 for size in ([kernel] if isinstance(kernel, int) else kernel))
    if not ones or divisor not in (None, 1) or padding not in (0, [0], [0, 0]):
        return None
    shape = list(found.meta["shape"])
    for axis, step in zip((-2, -1), steps, strict=True):
        place = len(shape) + axis
        if step > 1:
            found = _every(node, found, shape, place, step)
            shape[place] = -(-shape[place] // step)
    return found  # type: ignore[no-any-return]


_POOL: list[Any] = [None, [1, 1], [], 0, False, True, None]  # defaults of avg_pool2d(x, kernel, stride, padding, ...)
_SLICE: list[Any] = [None, 0, None, None, 1]  # defaults of slice(x, axis, start, end, step)


def layer_norm(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """(x - mean) / sqrt(variance + eps) * weight + bias, op by op: no runtime has it in integers."""
    given: tuple[Any, ...] = node.args
    source, sizes, weight, bias, eps = given[:5] + (None, None, 1e-5)[len(given) - 2 :]
    axes = list(range(-len(sizes), 0))
    rank = len(node.meta["shape"])
    centred = call(node, aten.sub.Tensor, source, call(node, aten.mean.dim, source, axes, True))
    variance = call(node, aten.mean.dim, call(node, aten.mul.Tensor, centred, centred), axes, True)
    shifted = call(node, aten.add.Tensor, variance, scalar_like(graph_module, node, f"{node.name}_eps", eps))
    result = call(node, aten.mul.Tensor, centred, call(node, aten.rsqrt.default, shifted))
    for op, part in ((aten.mul.Tensor, weight), (aten.add.Tensor, bias)):
        if part is not None:
            with node.graph.inserting_before(node):
                value = constant(graph_module, part).reshape((1,) * (rank - len(sizes)) + tuple(sizes))
                number = add_constant(graph_module, f"{node.name}_affine", value)
            result = call(node, op, result, number)
    return result


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


PARTS = {aten.unbind.int: 0, aten.split.Tensor: 1, aten.split_with_sizes.default: 1, aten.chunk.default: 1}
"""Ops that give several tensors -> where the axis stands behind their first argument."""

RULES: dict[str, dict[object, Rewrite]] = {
    "hard_sigmoid": {aten.hardsigmoid.default: hard_sigmoid},
    "hard_swish": {aten.hardswish.default: hard_swish},
    "silu": {aten.silu.default: silu},
    "pool_to_mean": {aten.adaptive_avg_pool2d.default: pool_to_mean},
    "pad_with": {aten.constant_pad_nd.default: pad_with},
    "pool_padding": {aten.max_pool2d.default: pool_padding},
    "every_other": {aten.slice.Tensor: every_other},
    "pool_of_one": {aten.avg_pool2d.default: pool_of_one},
    "patches_to_linear": {aten.conv2d.default: patches_to_linear},
    "big_depthwise": {aten.conv2d.default: big_depthwise},
    "numbers": dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), number_to_tensor),
    "layer_norm": {aten.layer_norm.default: layer_norm},
    "pieces": {operator.getitem: piece},
    "attention": {aten.scaled_dot_product_attention.default: attention},
}

DESCRIPTIONS = {
    "hard_sigmoid": "written as relu6(x + 3) / 6",
    "hard_swish": "written as x * relu6(x + 3) / 6",
    "silu": "written as x * sigmoid(x)",
    "pool_to_mean": "global average pool written as mean",
    "pool_padding": "zeros put around what is not negative before its maximum is taken",
    "pad_with": "padding with a number written as a concatenation",
    "every_other": "slices with steps written as a reshape and a selection",
    "pool_of_one": "average pools of one place written as a reshape and a selection",
    "patches_to_linear": "convolution over separate patches written as a linear",
    "big_depthwise": "depthwise convolutions of many taps written as sums of smaller ones",
    "numbers": "number operands written as constants, divisions as products",
    "layer_norm": "layer norms written op by op",
    "pieces": "parts of a split written as slices",
    "attention": "written as matmul, softmax, matmul",
}
