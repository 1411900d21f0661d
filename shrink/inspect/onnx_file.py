"""An .onnx file as bytes: parsed, and refused when running it would touch anything but itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from shrink.errors import RequestError
from shrink.inspect.kind import require
from shrink.inspect.ops import printable

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Op sets that are part of the runtime; any other would have to be loaded from a library."""


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and everything inside it."""
    todo = [message]
    while todo:
        one = todo.pop()
        yield one
        for _, value in one.ListFields():
            if hasattr(value, "ListFields"):
                todo.append(value)
            elif not isinstance(value, bytes | str) and hasattr(value, "__len__"):
                todo.extend(v for v in value if hasattr(v, "ListFields"))


def _refuse_foreign(model: Any, name: str) -> None:
    own = DOMAINS | {function.domain for function in model.functions}
    for part in _messages(model):
        if isinstance(part, onnx.TensorProto) and (part.external_data or part.data_location):
            raise RequestError(f"{name} keeps weights in other files",
                               f"the tensor '{printable(part.name, 60)}' is external data, which could be any file",
                               "save it as one file, with onnx.save_model and save_as_external_data=False")  # fmt: skip
        if isinstance(part, onnx.NodeProto) and part.domain not in own:
            raise RequestError(f"{name} needs a library of custom ops",
                               f"{printable(part.op_type, 60)} is of the op set '{printable(part.domain, 60)}'",
                               "export it with standard ops only")  # fmt: skip


def load(data: bytes, name: str) -> Any:
    """Parse a file into an onnx.ModelProto that refers to nothing outside itself.

    Raises:
        RequestError: not an ONNX file, a damaged one, or one that needs other files or libraries.
    """
    require(data, "onnx", name)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError has another base in each implementation
        why = printable(f"{type(error).__name__}: {error}")
        raise RequestError(f"{name} is a damaged ONNX file", why, "fetch or export it again") from error
    if not model.graph.node or not model.graph.output:
        raise RequestError(f"{name} is not an ONNX model", "there is no graph in it", "fetch or export it again")
    _refuse_foreign(model, name)
    return model


def fix_batch(model: Any, name: str) -> frozenset[str]:
    """Set every unnamed free batch dimension to 1, in place; return the names of the named ones.

    Raises:
        RequestError: a dimension other than the first is free, so nothing can be counted.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    free = set()
    for value in model.graph.input:
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if value.name in constants or side.HasField("dim_value"):
                continue
            if axis:
                raise RequestError(f"{name} has no fixed shape",
                                   f"axis {axis} of the input '{printable(value.name, 60)}' is free",
                                   "fix it: python -m onnxruntime.tools.make_dynamic_shape_fixed --help")  # fmt: skip
            if side.dim_param:
                free.add(side.dim_param)
            else:
                side.dim_value = 1
    return frozenset(free)


def quantization(model: Any, tensor: str) -> tuple[float | None, int | None]:
    """Scale and zero point of an integer input or output, from the node that quantizes or dequantizes it."""
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        ends = {"DequantizeLinear": list(node.input[:1]), "QuantizeLinear": list(node.output)}
        if tensor in ends.get(node.op_type, ()) and node.input[1] in constants:
            scale = np.ravel(numpy_helper.to_array(constants[node.input[1]]))
            zero = constants.get(node.input[2]) if len(node.input) > 2 else None
            return float(scale[0]), 0 if zero is None else int(np.ravel(numpy_helper.to_array(zero))[0])
    return None, None
