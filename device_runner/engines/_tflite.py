"""TensorFlow Lite's Python interpreter, which LiteRT and tflite_runtime both ship."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runner.engines.base import FIX, failed, refused


class TFLiteEngine:
    """A model in an `Interpreter`; the subclasses say whose."""

    name: str
    version: str
    fix = FIX  # of a model that it refuses

    def __init__(self, interpreter: Callable[..., Any], model: bytes, threads: int) -> None:
        self._model = model  # the interpreter reads these bytes for as long as it lives
        try:
            self._interpreter = interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise refused(self.name, error, self.fix) from error
        if len(inputs) != 1 or len(outputs) != 1:
            raise refused(self.name, f"it has {len(inputs)} inputs and {len(outputs)} outputs, not one of each")
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]

    @property
    def delegate(self) -> str | None:
        """The runtime's own list of what it runs names one DELEGATE per partition; XNNPACK is the only one built in."""
        count = sum(node["op_name"] == "DELEGATE" for node in self._interpreter._get_ops_details())
        return f"XNNPACK, {count} partition{'s' if count > 1 else ''}" if count else None

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        try:
            self._interpreter.set_tensor(self._input, x)
            self._interpreter.invoke()
            raw: NDArray[np.generic] = self._interpreter.get_tensor(self._output)
        except (ValueError, RuntimeError) as error:
            raise failed(self.name, x, error) from error
        return raw
