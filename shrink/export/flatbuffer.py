"""Rewrite a .tflite file smaller without changing what it computes.

Every vector that occurs twice is written once: a per-channel scale carries a zero point of eight
bytes a channel, all of them zero, which is a sixth of a small int8 model. So is every table, such
as the options of like ops. Tensor names are shortened; the converter's say nothing about the model.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from shrink.export.names import INPUT_NAME, OUTPUT_NAME

ALIGNMENT = 16  # bytes; what the schema asks of buffers


def compact(model: bytes) -> bytes:
    """The same model with equal vectors and tables shared, no buffers without content, and short tensor names."""
    tree = parse(model)
    tree.description = b"shrink"
    _drop_empty_buffers(tree)
    for graph in tree.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            tensor.name = str(index).encode()
        graph.tensors[graph.inputs[0]].name = INPUT_NAME.encode()
        graph.tensors[graph.outputs[0]].name = OUTPUT_NAME.encode()
    for signature in tree.signatureDefs or ():
        for tensor_map in signature.inputs:
            tensor_map.name = INPUT_NAME.encode()
        for tensor_map in signature.outputs:
            tensor_map.name = OUTPUT_NAME.encode()
    return pack(tree)


def _drop_empty_buffers(tree: Any) -> None:
    """Give all tensors without content the first buffer, which has none by convention, and number the others anew."""
    holders = [*(tensor for graph in tree.subgraphs for tensor in graph.tensors), *(tree.metadata or ())]
    kept = sorted({holder.buffer for holder in holders if tree.buffers[holder.buffer].data is not None} - {0})
    places = {buffer: place for place, buffer in enumerate(kept, start=1)}
    for holder in holders:
        holder.buffer = places.get(holder.buffer, 0)
    tree.buffers = [tree.buffers[buffer] for buffer in (0, *kept)]


def parse(model: bytes) -> Any:
    """The file as a tree of the schema's objects."""
    return schema.ModelT.InitFromPackedBuf(bytearray(model), 0)


def pack(tree: Any) -> bytes:
    """The file of a tree."""
    builder = _SharingBuilder(1024)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # the library has no types
    """Writes a vector of numbers, or a table of the same fields, once and refers to it from then on."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}
        self._tables: dict[tuple[Any, ...], int] = {}
        self._fields: list[Any] = []

    def StartObject(self, numfields: int) -> None:  # noqa: N802
        super().StartObject(numfields)
        self._fields = [numfields]

    def PrependSlot(self, flags: Any, o: int, x: Any, d: Any) -> None:  # noqa: N802
        super().PrependSlot(flags, o, x, d)
        self._fields.append((o, flags, x))

    def PrependUOffsetTRelativeSlot(self, o: int, x: int, d: int) -> None:  # noqa: N802
        super().PrependUOffsetTRelativeSlot(o, x, d)
        self._fields.append((o, None, x))

    def EndObject(self) -> Any:  # noqa: N802
        fields = tuple(self._fields)
        if fields in self._tables:  # take back what was written of this one
            self.head, self.current_vtable, self.nested = len(self.Bytes) - self.objectEnd, None, False
        else:
            self._tables[fields] = super().EndObject()
        return self._tables[fields]

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
