"""LiteRT (ai-edge-litert), the first choice for .tflite."""

from __future__ import annotations

from importlib.metadata import version

from ai_edge_litert.interpreter import Interpreter

from device_runner.engines._tflite import TFLiteEngine


class LiteRT(TFLiteEngine):
    """A .tflite model in LiteRT, with XNNPACK where it applies."""

    name = "litert"

    def __init__(self, model: bytes, threads: int) -> None:
        self.version = version("ai-edge-litert")
        super().__init__(Interpreter, model, threads)
