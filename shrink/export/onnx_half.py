"""Hold the weights of an .onnx file in 16 bits."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shrink.export.half import LEAST


def halve_onnx(model: onnx.ModelProto) -> None:
    """16-bit constants, in place."""
    widened = []
    for held in model.graph.initializer:
        values = numpy_helper.to_array(held)
        if values.dtype == np.float32 and values.size >= LEAST:
            wide, half = held.name, f"{held.name}_half"
            held.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
            widened.append(helper.make_node("Cast", [half], [wide], to=TensorProto.FLOAT))
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
