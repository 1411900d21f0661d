"""Hold the float constants of an .onnx file in fewer bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from shrink.export.narrow import is_table
from shrink.graph.tables import LEAST, Grid, grid

TABLE_READERS = {"Add", "Sub", "Mul", "Concat"}


def halve_onnx(model: onnx.ModelProto) -> None:
    """16-bit constants, in place."""
    _narrow(model, {name: None for name, numbers in _floats(model).items() if numbers.size >= LEAST})


def narrow_onnx_tables(model: onnx.ModelProto) -> None:
    """Float tables in 8 bits where codes stand for just these numbers, else in 16 if they are large and fit, in place;
    weights, biases and scales stay."""
    read = {name for node in model.graph.node if node.op_type in TABLE_READERS for name in node.input}
    others = {name for node in model.graph.node if node.op_type not in TABLE_READERS for name in node.input}
    tables = {name: numbers for name, numbers in _floats(model).items() if name in read - others}
    found = {name: grid(numbers) for name, numbers in tables.items()}
    _narrow(model, {name: codes for name, codes in found.items() if codes is not None or is_table(tables[name])})


def _floats(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The 32-bit float constants by name."""
    kept = [held for held in model.graph.initializer if held.data_type == TensorProto.FLOAT]
    return {held.name: numpy_helper.to_array(held) for held in kept}


def _narrow(model: onnx.ModelProto, wanted: Mapping[str, Grid | None]) -> None:
    """Some constants in 8 bits, or in 16 where there are no codes, each widened by ops.

    Codes are cast and multiplied: what ONNX Runtime would dequantize anew on every run it computes once so.
    """
    widened, multiplied, steps = [], [], []
    for held in model.graph.initializer:
        if held.name not in wanted:
            continue
        wide, codes = held.name, wanted[held.name]
        narrow, cast = f"{wide}_narrow", wide if codes is None else f"{wide}_cast"
        if codes is None:
            held.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(held).astype(np.float16), narrow))
        else:
            held.CopyFrom(numpy_helper.from_array(codes.codes, narrow))
            steps.append(numpy_helper.from_array(codes.broadcast_steps, f"{wide}_steps"))
            multiplied.append(helper.make_node("Mul", [cast, f"{wide}_steps"], [wide]))
        widened.append(helper.make_node("Cast", [narrow], [cast], to=TensorProto.FLOAT))
    model.graph.initializer.extend(steps)
    nodes = [*widened, *multiplied, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
