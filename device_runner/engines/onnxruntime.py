"""ONNX Runtime, on the CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runner.engines._onnx_scan import has_external_data
from device_runner.engines.base import failed, refused

ONLY_ERRORS = 3


class ONNXRuntime:
    """An .onnx model in ONNX Runtime, fully optimized, self-contained."""

    name = "onnxruntime"
    delegate = None  # its own kernels, on the CPU

    def __init__(self, model: bytes, threads: int) -> None:
        self.version: str = ort.__version__
        self._model = model
        try:
            external = has_external_data(model)
        except ValueError as error:
            raise refused(self.name, error) from error
        if external:  # ONNX Runtime would open the files it names, which nobody verified
            raise refused(self.name, "it keeps weights in other files (external data)")
        try:
            self._session = ort.InferenceSession(model, _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:  # the border: ONNX Runtime's errors share no base but Exception
            raise refused(self.name, error) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise refused(self.name, f"it has {len(inputs)} inputs and {len(outputs)} outputs, not one of each")
        self._input: str = inputs[0].name

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        try:
            raw: NDArray[np.generic] = self._session.run(None, {self._input: x})[0]
        except Exception as error:  # the border, as above
            raise failed(self.name, x, error) from error
        return raw


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ONLY_ERRORS
    return options
