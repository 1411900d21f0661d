"""How far the answers of an integer .tflite file depend on whose kernels compute it.

Kernels of other runtimes round a product's last bit otherwise, and layer after layer that adds up. A device that
lacks the kernels of the golden record can be held to it only as closely as such kernels agree, which is measured
here with two of the exporting runtime: XNNPACK's and LiteRT's own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from device_runner.golden import read_golden
from device_runner.manifest import Output, TruthLabel
from device_runner.postprocess import scores

Run = Callable[[NDArray[np.generic]], NDArray[np.generic]]  # an encoded image -> the raw output


def differ(truth: TruthLabel) -> bool:
    """Whether a runtime without the delegate might answer otherwise, and has kernels for all of the file.

    Older runtimes refuse ranges that are taken at run time, so those files have no other kernels to be held to.
    """
    return truth.delegate is not None and truth.int8_mac_share > 0 and truth.dynamic_mac_share == 0


def alone(model: bytes) -> Run | None:
    """The file in LiteRT's own kernels, without a delegate; None: they do not take it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    own = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=own)
    try:
        interpreter.allocate_tensors()
        interpreter.invoke()  # on zeros: some kernels refuse only here
    except (ValueError, RuntimeError):
        return None
    entry, end = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: NDArray[np.generic]) -> NDArray[np.generic]:
        interpreter.set_tensor(entry, x)
        interpreter.invoke()
        raw: NDArray[np.generic] = interpreter.get_tensor(end)
        return raw

    return run


def spread(one: bytes, other: bytes, output: Output) -> float:
    """The largest difference of a score between two golden records of the same images, in real numbers."""
    a, b = (np.stack([scores(raw[np.newaxis], output) for raw in read_golden(g).outputs]) for g in (one, other))
    return float(np.abs(a - b).max())
