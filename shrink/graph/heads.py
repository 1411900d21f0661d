"""A sum of two heads that read one value is one head.

A distilled network has a head that learned from the labels and one that learned from the teacher, and answers with
their mean (Touvron et al., "Training data-efficient image transformers", ICML 2021). In LeViT (Graham et al., ICCV
2021), EfficientFormer and RepViT both read the same value, so that one can answer for both: LeViT-128 loses a twelfth
of its weights.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

from shrink.graph.branches import SUMS
from shrink.graph.edit import add_constant, call, constant, is_constant, replace

aten = torch.ops.aten


def merge_heads(graph_module: fx.GraphModule) -> int:
    """Write sums of two linears of one value as one linear, in place; returns how many there were."""
    return sum([_merge(graph_module, node) for node in list(graph_module.graph.nodes) if node.target in SUMS])


def _merge(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    one, other, *_ = node.args
    if node.kwargs or not (_is_head(one) and _is_head(other)) or one.args[0] is not other.args[0]:
        return False
    if one.meta["shape"] != other.meta["shape"]:
        return False
    sign, name = SUMS[node.target], node.name  # type: ignore[index]
    weight = constant(graph_module, one.args[1]) + sign * constant(graph_module, other.args[1])
    bias = _bias(graph_module, one) + sign * _bias(graph_module, other)
    with node.graph.inserting_before(node):
        given = [add_constant(graph_module, f"{name}_{kind}", n) for kind, n in (("weight", weight), ("bias", bias))]
    replace(node, call(node, aten.linear.default, one.args[0], *given))
    return True


def _is_head(value: object) -> TypeGuard[fx.Node]:
    """Whether it is a linear with constant weights that one node alone reads."""
    is_linear = isinstance(value, fx.Node) and value.target is aten.linear.default and len(value.users) == 1
    return is_linear and all(n is None or is_constant(n) for n in value.args[1:])  # type: ignore[attr-defined]


def _bias(graph_module: fx.GraphModule, linear: fx.Node) -> Tensor:
    """Of a linear, or zeros."""
    given: Any = (*linear.args, None)[2]
    return torch.zeros(linear.meta["shape"][-1]) if given is None else constant(graph_module, given)
