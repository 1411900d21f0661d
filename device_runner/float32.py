"""Numbers as models hold them."""

from __future__ import annotations

import struct

FLOAT32 = struct.Struct("f")


def f32(value: float) -> float:
    """The nearest 32-bit float."""
    return float(FLOAT32.unpack(FLOAT32.pack(value))[0])
