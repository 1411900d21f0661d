"""Rewrites of ops into ones that a runtime computes in int8, each exact in float.

One row per ATen op: the function emits the replacement before the node and returns it. What is
rewritten for a target is that target's data (`targets/*.toml`, key `lower`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import torch
from torch import fx

from shrink.graph.branches import merge_branches
from shrink.graph.clean import tidy
from shrink.graph.edit import replace
from shrink.graph.factors import fold_factors, fold_scales, move_to_gates
from shrink.graph.heads import merge_heads
from shrink.graph.linear_parts import LARGE, TILE, split_linears
from shrink.graph.lower_activations import (
    celu,
    elu,
    hard_shrink,
    log_sigmoid,
    log_softmax,
    log_sum_exp,
    mish,
    odd_clamp,
    one_sided,
    power,
    prelu,
    selu,
    soft_shrink,
    softplus,
    threshold,
)
from shrink.graph.lower_compute import (
    attention,
    hard_sigmoid,
    hard_swish,
    last_softmax,
    layer_norm,
    number_to_tensor,
    silu,
)
from shrink.graph.lower_convolutions import big_depthwise, patches_to_linear, split_multiples
from shrink.graph.lower_places import every_other, nearest, pad_with, piece, short_cats, stretch
from shrink.graph.lower_pools import across_channels, average_pool, pool_padding, pool_to_mean
from shrink.graph.lower_resizes import resize
from shrink.graph.lower_selections import select
from shrink.graph.lower_sums import mean_of_stacked, sum_of_few
from shrink.graph.lower_views import view_last
from shrink.graph.masks import deepen_masks
from shrink.graph.norms import fold_norms, fold_shifts
from shrink.graph.orders import fold_orders
from shrink.graph.pixels import align_to_pixels
from shrink.graph.plain_norms import write_norms
from shrink.graph.shapes import annotate_shapes, input_shape
from shrink.graph.windows import write_windows

aten = torch.ops.aten
PIXEL_GRID, PIXEL_GRID_ALWAYS = "pixel_grid", "pixel_grid_always"
Rewrite = Callable[[fx.GraphModule, fx.Node], fx.Node | None]
Whole = Callable[[fx.GraphModule], int]


def lower(
    graph_module: fx.GraphModule,
    rules: Collection[str],
    *,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
) -> tuple[str, ...]:
    """Apply the named rules in place.

    Args:
        rules: names from `FIRST`, `RULES` and `LAST`, and "pixel_grid" or "pixel_grid_always", which takes patch
            embeddings, too.
        normalization: mean and std per channel of the image input, which "pixel_grid" needs.

    Returns:
        One line per rule that fired, such as "hardswish -> x * relu6(x + 3) / 6, 14 times".
    """
    wanted = {target: (name, rewrite) for name in rules if name in RULES for target, rewrite in RULES[name].items()}
    fired: dict[str, int] = {}
    _apply_whole(graph_module, FIRST, rules, fired)
    for node in list(graph_module.graph.nodes):
        if node.target not in wanted:
            continue
        name, rewrite = wanted[node.target]
        new = rewrite(graph_module, node)
        if new is not None:
            replace(node, new)
            fired[name] = fired.get(name, 0) + 1
    _settle(graph_module)
    _apply_whole(graph_module, LAST, rules, fired)
    lines = [f"{name}: {DESCRIPTIONS[name]}, {count} times" for name, count in fired.items()]
    if folded := fold_factors(graph_module):
        lines.append(f"factors: constant products moved into the next weights, {folded} times")
    tidy(graph_module)
    grid = next((rule for rule in (PIXEL_GRID, PIXEL_GRID_ALWAYS) if rule in rules), None)
    patches = grid == PIXEL_GRID_ALWAYS
    if grid and normalization is not None and align_to_pixels(graph_module, *normalization, patches=patches):
        lines.append(f"{PIXEL_GRID}: the first convolution reads grey levels 0..255; the codes of the image are exact")
        _settle(graph_module)
    return tuple(lines)


def _apply_whole(
    graph_module: fx.GraphModule, rewrites: Mapping[str, Whole], rules: Collection[str], fired: dict[str, int]
) -> None:
    for name in (rule for rule in rewrites if rule in rules):
        if count := rewrites[name](graph_module):
            fired[name] = count
            _settle(graph_module)


def _settle(graph_module: fx.GraphModule) -> None:
    """Bring the graph's code and the shapes of its new nodes up to date."""
    tidy(graph_module)
    annotate_shapes(graph_module, torch.zeros(input_shape(graph_module)))


FIRST: dict[str, Whole] = {
    "windows": write_windows,
    "branches": merge_branches,
    "multiples": split_multiples,
    "orders": fold_orders,
    "place_norms": write_norms,
    "integer_norms": partial(write_norms, in_float=False),
}
LAST: dict[str, Whole] = {
    "masks": deepen_masks,
    "scales": fold_scales,
    "norms": fold_norms,
    "affines": partial(fold_norms, layer_norms=False),
    "shifts": fold_shifts,
    "heads": merge_heads,
    "gates": move_to_gates,
    "views": view_last,
    "linear_parts": split_linears,
    "large_parts": partial(split_linears, tile=TILE, least=LARGE),
}
"""Rewrites that look at more than one op, each once, before and after the others; they say how often they fired."""

RULES: dict[str, dict[object, Rewrite]] = {
    "hard_sigmoid": {aten.hardsigmoid.default: hard_sigmoid},
    "hard_swish": {aten.hardswish.default: hard_swish},
    "silu": {aten.silu.default: silu},
    "activations": {
        aten.celu.default: celu,
        aten.elu.default: elu,
        aten.hardshrink.default: hard_shrink,
        aten.log_sigmoid.default: log_sigmoid,
        aten.mish.default: mish,
        aten.selu.default: selu,
        aten.softplus.default: softplus,
        aten.softshrink.default: soft_shrink,
        aten.threshold.default: threshold,
    },
    "prelu": {aten.prelu.default: prelu},
    "clamps": {
        aten.clamp.default: one_sided,
        aten.clamp_min.default: one_sided,
        aten.clamp_max.default: one_sided,
        aten.hardtanh.default: odd_clamp,
    },
    "powers": {aten.pow.Tensor_Scalar: power},
    "logarithms": {aten.log_softmax.int: log_softmax, aten.logsumexp.default: log_sum_exp},
    "pool_to_mean": {aten.adaptive_avg_pool2d.default: pool_to_mean},
    "pad_with": {aten.constant_pad_nd.default: pad_with},
    "across_channels": {aten.avg_pool3d.default: across_channels},
    "pool_padding": {aten.max_pool2d.default: pool_padding},
    "every_other": {aten.slice.Tensor: every_other},
    "average_pool": {aten.avg_pool2d.default: average_pool},
    "short_cats": {aten.cat.default: short_cats},
    "patches_to_linear": {aten.conv2d.default: patches_to_linear},
    "big_depthwise": {aten.conv2d.default: big_depthwise},
    "numbers": dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), number_to_tensor),
    "last_softmax": {aten.softmax.int: last_softmax},
    "layer_norm": {aten.layer_norm.default: layer_norm},
    "pieces": {operator.getitem: piece},
    "stretch": {aten.expand.default: stretch},
    "nearest": dict.fromkeys(
        (
            aten.upsample_nearest2d.vec,
            aten.upsample_nearest2d.default,
            aten._upsample_nearest_exact2d.vec,
            aten._upsample_nearest_exact2d.default,
        ),
        nearest,
    ),
    "selections": dict.fromkeys((aten.index.Tensor, aten.index_select.default, aten.flip.default), select),
    "resizes": dict.fromkeys(
        (
            aten.upsample_bicubic2d.vec,
            aten.upsample_bicubic2d.default,
            aten._upsample_bicubic2d_aa.vec,
            aten._upsample_bicubic2d_aa.default,
            aten._upsample_bilinear2d_aa.vec,
            aten._upsample_bilinear2d_aa.default,
        ),
        resize,
    ),
    "few_terms": {aten.sum.dim_IntList: sum_of_few, aten.mean.dim: mean_of_stacked},
    "attention": {aten.scaled_dot_product_attention.default: attention},
}

DESCRIPTIONS = {
    "windows": "windows over an image, and padding by reflection, written as slices, sums and concatenations",
    "stretch": "copies along an axis written as a sum that stretches",
    "branches": "sums of convolutions of one value, or of depthwise branches, written as one convolution",
    "place_norms": "group and instance norms written op by op",
    "integer_norms": "group and instance norms written op by op",
    "activations": "activations of exponentials written with exp, log and sigmoid, without comparisons",
    "prelu": "written as relu(x) + slope * min(x, 0)",
    "clamps": "clamps with one end, or with other two than runtimes fuse, written with a relu or relu6",
    "powers": "written as products, or with exp and log",
    "logarithms": "logarithms of sums of exponentials written with exp and log",
    "across_channels": "averages across channels written as sums of slices",
    "hard_sigmoid": "written as relu6(x + 3) / 6",
    "hard_swish": "written as x * relu6(x + 3) / 6",
    "silu": "written as x * sigmoid(x)",
    "pool_to_mean": "average pools over all places written as means, over uneven windows as linears",
    "pool_padding": "zeros, or copies of its edges, put around a value before its maximum is taken",
    "pad_with": "padding with a number written as a concatenation",
    "every_other": "slices with steps written as a reshape and a selection",
    "average_pool": "average pools written as depthwise convolutions, means or selections",
    "short_cats": "concatenations of many parts written as ones of few",
    "patches_to_linear": "convolution over separate patches written as a linear",
    "multiples": "depthwise convolutions that widen their input written as several side by side",
    "orders": "changes of the order of channels moved into the weights after them",
    "masks": "masks before a softmax deepened, so that it leaves zeros",
    "scales": "products with one number, or one per channel, moved into the weights before them",
    "gates": "constant factors of a product moved to its smaller side",
    "norms": "scales and shifts of norms moved into the weights after them",
    "affines": "scales and shifts per channel moved into the weights after them",
    "shifts": "sums with one number moved into the weights after them",
    "views": "sums and products of two values that are viewed alike computed before the view",
    "linear_parts": "linears that are only read in parts written as one per part",
    "large_parts": "large linears that are only read in parts written as one per part",
    "heads": "sums of two linears of one value written as one",
    "big_depthwise": "depthwise convolutions of many taps written as sums of smaller ones",
    "numbers": "number operands written as constants, divisions as products",
    "last_softmax": "softmax over another axis written as one over the last",
    "layer_norm": "layer norms written op by op",
    "pieces": "parts of a split written as slices",
    "nearest": "nearest resizes written as concatenations or selections",
    "selections": "places of an axis, or all in reverse, written as slices or as a linear",
    "resizes": "bicubic resizes, and those that filter against aliasing, written as a linear along each axis",
    "few_terms": "sums over an axis of few places, and averages of what was stacked, written as sums of the parts",
    "attention": "written as matmul, softmax, matmul",
}
