"""Let a mask before a softmax leave zeros, not numbers that are nearly zero.

Swin masks what lies in another window by adding -100, which leaves exp(-100) = 3.7e-44. So small a float32 is
subnormal, and processors take many times as long to multiply one: in ONNX Runtime the five products behind the masks of
a Swin-T took 25 of 77 ms. XNNPACK's softmax gives zeros itself.
"""

from __future__ import annotations

import torch
from torch import fx

from shrink.graph.edit import constant, is_constant, set_constant

aten = torch.ops.aten
DEEP = 80.0
"""Below the largest of its row, from which on a number masks: exp(-80) = 1.8e-35 is nothing beside exp(0) = 1."""
DEEPER = 1000.0
"""What is put in its place, so that scores that are hundreds apart give zeros, too."""


def deepen_masks(graph_module: fx.GraphModule) -> int:
    """Lower the numbers of constants that mask what a softmax reads; returns of how many constants."""
    return sum([_deepen(graph_module, node) for node in graph_module.graph.nodes if node.target is aten.add.Tensor])


def _deepen(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    constants = [index for index, value in enumerate(node.args) if is_constant(value)]
    if len(constants) != 1 or not _feeds_softmax(node, node.meta["shape"][-1]):
        return False
    value = constant(graph_module, node.args[constants[0]])
    if value.dim() == 0 or value.shape[-1] != node.meta["shape"][-1]:
        return False
    row = value.amax(-1, keepdim=True)
    deep = value <= row - DEEP
    if not deep.any():
        return False
    set_constant(graph_module, node, constants[0], torch.where(deep, row - DEEPER, value))
    return True


def _feeds_softmax(node: fx.Node, width: int) -> bool:
    """Whether only softmaxes over rows of so many numbers read them, through views that leave rows whole."""
    return bool(node.users) and all(_is_softmax_of(reader, width) for reader in node.users)


def _is_softmax_of(reader: fx.Node, width: int) -> bool:
    shape = reader.meta["shape"]
    if reader.target is aten.reshape.default:
        return bool(shape[-1] == width) and _feeds_softmax(reader, width)
    return reader.target is aten.softmax.int and reader.args[1] in (-1, len(shape) - 1)
