"""tflite_runtime, for old boards that LiteRT has no wheel for. It needs numpy below 2."""

from __future__ import annotations

from importlib.metadata import version

from tflite_runtime.interpreter import Interpreter

from device_runner.engines._tflite import TFLiteEngine


class TFLiteRuntime(TFLiteEngine):
    """A .tflite model in tflite_runtime."""

    name = "tflite_runtime"
    fix = "pip install ai-edge-litert, which knows newer ops, or use a bundle for tflite-int8-full or tflite-fp32"

    def __init__(self, model: bytes, threads: int) -> None:
        self.version = version("tflite-runtime")
        super().__init__(Interpreter, model, threads)
