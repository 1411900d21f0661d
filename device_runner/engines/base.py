"""What every runtime looks like to the rest of the runner, and how it says no."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_runner.errors import EngineError

FIX = "export the bundle again, or choose another engine"  # of a model that an engine refuses, or answers wrongly


class Engine(Protocol):
    """A loaded model: one input tensor in, one output tensor out. Made by `open_engine`."""

    name: str  # of the runtime, as in ENGINES
    version: str  # of the installed runtime
    delegate: str | None  # what the runtime handed the graph to, such as "XNNPACK, 1 partition"; None: nothing

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """One inference.

        Args:
            x: as `preprocess.encode` gives it, batch 1.

        Returns:
            the raw output, shape (1, classes), a copy the caller owns.

        Raises:
            EngineError: the runtime refuses the input or fails.
        """
        ...


def refused(name: str, why: object, fix: str = FIX) -> EngineError:
    """The runtime will not load the model."""
    return EngineError(f"{name} refused the model", _one_line(why), fix)


def failed(name: str, x: NDArray[np.generic], why: object) -> EngineError:
    """The runtime failed on one input."""
    return EngineError(f"{name} failed on an input {x.dtype} {x.shape}", _one_line(why), "export the bundle again")


def _one_line(why: object) -> str:
    return " ".join(str(why).split()) or type(why).__name__
