"""The model's process with a slower model: the engine runs so many times per frame. slow_worker TIMES ORDER."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runner.worker import child
from device_runner.worker.model import Model


def repeat(model: Model, times: int) -> None:
    """Let the engine run so many times for each answer."""
    run = model.engine.run

    def again(x: NDArray[np.generic]) -> NDArray[np.generic]:
        for _ in range(times - 1):
            run(x)
        return run(x)

    model.engine.run = again  # type: ignore[method-assign]


def main() -> int:
    """As the process that it stands for."""
    times = int(sys.argv.pop(1))

    class Slow(Model):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            repeat(self, times)

    child.Model = Slow  # type: ignore[attr-defined]
    return child.main()


if __name__ == "__main__":
    sys.exit(main())
