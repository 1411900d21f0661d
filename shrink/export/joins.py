"""Long concatenations in a .tflite file as ones of few parts.

XNNPACK takes up to five parts; a longer one, as of VoVNet, HarDNet and NASNet, cuts the graph in two. The converter
joins again what nobody else reads apart, so that this comes after it.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrink.export.flatbuffer import pack, parse
from shrink.export.ports import code_of
from shrink.graph.lower_selections import MOST_PARTS


def short_joins(model: bytes) -> bytes:
    """The file with every concatenation of at most `MOST_PARTS` values: neighbours are joined before, the smallest
    first, as they are copied twice."""
    tree = parse(model)
    (graph,) = tree.subgraphs
    operators = [part for op in graph.operators for part in _in_steps(tree, graph, op)]
    if len(operators) == len(graph.operators):
        return model
    graph.operators = operators
    return pack(tree)


def _in_steps(tree: Any, graph: Any, op: Any) -> list[Any]:
    """An op and, if it is a long concatenation, those that join some of its parts before it."""
    before: list[Any] = []
    while code_of(tree, op) == schema.BuiltinOperator.CONCATENATION and len(op.inputs) > MOST_PARTS:
        axis, parts = op.builtinOptions.axis, list(op.inputs)
        sizes = [int(graph.tensors[index].shape[axis]) for index in parts]
        start, end = _smallest(sizes, min(MOST_PARTS, len(parts) - MOST_PARTS + 1))
        inner, joined = copy.deepcopy(op), copy.deepcopy(graph.tensors[op.outputs[0]])
        joined.shape = np.array(joined.shape)
        joined.shape[axis], joined.shapeSignature = sum(sizes[start:end]), None
        graph.tensors.append(joined)
        inner.inputs, inner.outputs = parts[start:end], [len(graph.tensors) - 1]
        op.inputs = [*parts[:start], *inner.outputs, *parts[end:]]
        before.append(inner)
    return [*before, op]


def _smallest(sizes: list[int], count: int) -> tuple[int, int]:
    """(start, end) of so many neighbours of the least total size."""
    start = min(range(len(sizes) - count + 1), key=lambda at: sum(sizes[at : at + count]))
    return start, start + count
