"""Writes an expression as ops before a node, as a rewrite needs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from shrink.graph.edit import add_constant, call, scalar_like

aten = torch.ops.aten


class Scribe:
    """Writes ops before a node; numbers among their operands become constants, which can be given codes."""

    def __init__(self, graph_module: fx.GraphModule, node: fx.Node) -> None:
        self._module, self._node, self._count = graph_module, node, 0

    def __call__(self, op: Any, *args: Any) -> fx.Node:
        return call(self._node, op, *args)

    def number(self, value: float) -> fx.Node:
        self._count += 1
        return scalar_like(self._module, self._node, f"{self._node.name}_number{self._count}", float(value))

    def held(self, numbers: torch.Tensor) -> fx.Node:
        with self._node.graph.inserting_before(self._node):
            return add_constant(self._module, f"{self._node.name}_numbers", numbers)

    def add(self, x: fx.Node, y: fx.Node | float) -> fx.Node:
        return self._pair(aten.add.Tensor, x, y, 0.0)

    def mul(self, x: fx.Node, y: fx.Node | float) -> fx.Node:
        return self._pair(aten.mul.Tensor, x, y, 1.0)

    def sub(self, x: fx.Node, y: fx.Node) -> fx.Node:
        return self(aten.sub.Tensor, x, y)

    def relu(self, x: fx.Node) -> fx.Node:
        return self(aten.relu.default, x)

    def _pair(self, op: Any, x: fx.Node, y: fx.Node | float, neutral: float) -> fx.Node:
        if isinstance(y, fx.Node):
            return self(op, x, y)
        return x if y == neutral else self(op, x, self.number(y))
