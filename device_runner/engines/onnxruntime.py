"""ONNX Runtime, on the CPU."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runner.engines._onnx_scan import has_external_data
from device_runner.engines.base import failed, refused
from device_runner.processor import features

ONLY_ERRORS, ONLY_FATAL = 3, 4
EXACT_SUMS = ("session.x64quantprecision", "1")
"""On x86 without VNNI the fast 8-bit kernels add two products in 16 bits and overflow without a word; with this
ONNX Runtime takes exact ones there. Nobody else may ask for it: with AMX, whose kernels are exact, ONNX Runtime 1.32
takes slower ones, too, and an int8 file takes twice its time."""
ALWAYS_EXACT = {"avx512_vnni", "avx_vnni"}  # processors with AMX have them, too


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
            self._session = _session(model, threads)
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


def must_ask(root: Path = Path("/")) -> bool:
    """Whether this processor's fast kernels may overflow; True where the system does not tell what it is."""
    return not ALWAYS_EXACT & features(root)


def _session(model: bytes, threads: int) -> ort.InferenceSession:
    """Exact where the runtime can: version 1.32 refuses so a file of weights that share one zero point."""
    if must_ask():
        with suppress(Exception):  # the border, as below; what is wrong with the file itself is so without it, too
            return ort.InferenceSession(model, _options(threads, EXACT_SUMS), providers=["CPUExecutionProvider"])
    return ort.InferenceSession(model, _options(threads), providers=["CPUExecutionProvider"])


def _options(threads: int, *entries: tuple[str, str]) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ONLY_FATAL if entries else ONLY_ERRORS  # a refusal of these is tried again
    for key, value in entries:
        options.add_session_config_entry(key, value)
    return options
