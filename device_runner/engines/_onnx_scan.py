"""Whether an ONNX file refers to other files, read from its protobuf without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

CHILDREN = {  # message -> field number -> message in that field; only what leads to a tensor
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # fields of Tensor; a location of 0 is inside the file


def has_external_data(model: bytes) -> bool:
    """Whether any tensor in the model, at any depth, keeps its data in another file.

    Raises:
        ValueError: the bytes are not a protobuf message.
    """
    data = memoryview(model)
    todo = [("Model", 0, len(data))]
    while todo:
        kind, start, end = todo.pop()
        for field, wire, value, stop in _fields(data, start, end):
            if kind == "Tensor" and (field == EXTERNAL_DATA or (field == DATA_LOCATION and value)):
                return True
            if wire == BYTES and field in CHILDREN[kind]:
                todo.append((CHILDREN[kind][field], value, stop))
    return False


def _fields(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field as (number, wire type, its value or where its bytes start, where it ends)."""
    while at < end:
        tag, at = _varint(data, at, end)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, stop = _varint(data, at, end)
        elif wire == BYTES:
            length, value = _varint(data, at, end)
            stop = value + length
        elif wire in (FIXED64, FIXED32):
            value, stop = at, at + (8 if wire == FIXED64 else 4)
        else:  # groups, which ONNX has none of
            raise ValueError(f"it is not an ONNX file: wire type {wire} at byte {at}")
        if stop > end or not 0 < field < 1 << 29:
            raise ValueError(f"it is not an ONNX file: bad field {field} at byte {at}")
        yield field, wire, value, stop
        at = stop


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for i in range(min(10, end - at)):
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return value, at + i + 1
    raise ValueError(f"it is not an ONNX file: endless number at byte {at}")
