"""Padding in the layout of what is padded.

litert-torch turns an image's axes before each padding that no convolution does itself, and back behind it: it has no
form of the op for NHWC. A depthwise convolution in parts, which read slices of one padded image, had four such turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, fx

aten = torch.ops.aten


@contextmanager
def pads_in_place() -> Iterator[None]:
    """Let the converter pad NHWC images; litert-torch has no setting for it."""
    from litert_torch._convert.fx_passes.optimize_layout_transposes_pass import layout_rewrite

    rewriters = layout_rewrite.rewriters
    before = dict(rewriters)
    rewriters[aten.constant_pad_nd.default] = _rewrite
    try:
        yield
    finally:
        rewriters.clear()
        rewriters.update(before)


def _rewrite(node: fx.Node) -> None:
    node.target = pad_nhwc


def pad_nhwc(x: Tensor, counts: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad (N, H, W, C) by what `constant_pad_nd` is told of (N, C, H, W): pairs for W, H, C and N, as far as given."""
    wide, high, channels, images = (tuple(counts[i : i + 2]) or (0, 0) for i in (0, 2, 4, 6))
    padded: Tensor = aten.constant_pad_nd.default(x, [*channels, *wide, *high, *images], value)
    return padded
