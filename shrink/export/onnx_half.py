"""Hold the weights of an .onnx file in 16 bits."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shrink.export.half import LEAST, is_table

TABLE_READERS = {"Add", "Sub", "Mul", "Concat"}


def halve_onnx(model: onnx.ModelProto) -> None:
    """16-bit constants, in place."""
    _halve(model, {name for name, numbers in _floats(model).items() if numbers.size >= LEAST})


def halve_onnx_tables(model: onnx.ModelProto) -> None:
    """Large float tables in 16 bits, in place, if they fit; weights, biases and scales stay."""
    read = {name for node in model.graph.node if node.op_type in TABLE_READERS for name in node.input}
    others = {name for node in model.graph.node if node.op_type not in TABLE_READERS for name in node.input}
    _halve(model, {name for name, numbers in _floats(model).items() if name in read - others and is_table(numbers)})


def _floats(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The 32-bit float constants by name."""
    kept = [held for held in model.graph.initializer if held.data_type == TensorProto.FLOAT]
    return {held.name: numpy_helper.to_array(held) for held in kept}


def _halve(model: onnx.ModelProto, wanted: Collection[str]) -> None:
    """Some constants in 16 bits, each widened by an op."""
    widened = []
    for held in model.graph.initializer:
        if held.name in wanted:
            wide, half = held.name, f"{held.name}_half"
            held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held).astype(np.float16), half))
            widened.append(helper.make_node("Cast", [half], [wide], to=TensorProto.FLOAT))
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
