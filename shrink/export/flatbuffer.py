"""Rewrite a .tflite file smaller without changing what it computes.

Every vector that occurs twice is written once: a per-channel scale carries a zero point of eight
bytes a channel, all of them zero, which is a sixth of a small int8 model. Tensor names are
shortened; the converter's say nothing about the model.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrink.export.names import INPUT_NAME, OUTPUT_NAME

ALIGNMENT = 16  # bytes; what the schema asks of buffers


def compact(model: bytes) -> bytes:
    """The same model with equal vectors shared and short tensor names."""
    tree = parse(model)
    tree.description = b"shrink"
    for graph in tree.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            tensor.name = f"t{index}".encode()
        graph.tensors[graph.inputs[0]].name = INPUT_NAME.encode()
        graph.tensors[graph.outputs[0]].name = OUTPUT_NAME.encode()
    for signature in tree.signatureDefs or ():
        for tensor_map in signature.inputs:
            tensor_map.name = INPUT_NAME.encode()
        for tensor_map in signature.outputs:
            tensor_map.name = OUTPUT_NAME.encode()
    return pack(tree)


def parse(model: bytes) -> Any:
    """The file as a tree of the schema's objects."""
    return schema.ModelT.InitFromPackedBuf(bytearray(model), 0)


def pack(tree: Any) -> bytes:
    """The file of a tree."""
    builder = _SharingBuilder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # the library has no types
    """Writes a vector of numbers once and refers to it from then on."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> Any:  # noqa: N802  the library's name
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = self._aligned(x)
        return self._written[key]

    def _aligned(self, x: np.ndarray) -> Any:
        if x.dtype.itemsize > 1:
            return super().CreateNumpyVector(x)
        self.StartVector(1, x.size, ALIGNMENT)
        data = x.tobytes()
        self.head -= len(data)
        self.Bytes[self.head : self.head + len(data)] = data
        self.vectorNumElems = x.size
        return self.EndVector()
