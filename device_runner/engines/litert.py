"""LiteRT (ai-edge-litert), the first choice for .tflite."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version

from ai_edge_litert.interpreter import Interpreter

from device_runner.engines._tflite import TFLiteEngine

STDERR = 2


class LiteRT(TFLiteEngine):
    """A .tflite model in LiteRT, with XNNPACK where it applies."""

    name = "litert"

    def __init__(self, model: bytes, threads: int) -> None:
        self.version = version("ai-edge-litert")
        with greetings_aside():
            super().__init__(Interpreter, model, threads)


@contextlib.contextmanager
def greetings_aside() -> Iterator[None]:
    """Hold stderr back while the block runs, and then let through all but what LiteRT marks as INFO.

    It writes from C++ to the descriptor itself and has no setting for it. Warnings, errors and whatever else
    is written meanwhile come out at the end of the block, also when it raises.
    """
    try:
        real = os.dup(STDERR)
    except OSError:  # closed by whoever started us
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(real, STDERR)
            os.close(real)
            said.seek(0)
            for line in said:
                if not line.startswith(b"INFO: "):
                    os.write(STDERR, line)
