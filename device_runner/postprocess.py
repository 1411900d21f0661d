"""From the model's raw output to named answers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from device_runner.errors import EngineError
from device_runner.float32 import f32
from device_runner.manifest import Output


@dataclass(frozen=True, slots=True)
class Answer:
    """One class the model sees in an image."""

    label: str
    index: int
    confidence: float  # 0..1


def scores(raw: NDArray[np.generic], spec: Output) -> NDArray[np.float32]:
    """The output in real numbers, shape (classes,): (code - zero_point) * scale when it is quantized.

    Args:
        raw: what the engine gave, shape (1, classes).
        spec: the manifest's output.

    Raises:
        EngineError: another shape or dtype than the manifest states, or NaN or infinity among the scores.
    """
    _check_form(raw, spec)
    real: NDArray[np.float32] = raw[0].astype(np.float32)
    if spec.scale is not None and spec.zero_point is not None:
        real -= np.float32(spec.zero_point)
        real *= np.float32(spec.scale)
    if not np.isfinite(real).all():
        raise _not_numbers(real)
    return real


def confidences(raw: NDArray[np.generic], spec: Output) -> tuple[float, ...]:
    """Confidence per class, each a 32-bit float: softmax of logits, or the model's own probabilities as they are.

    Written without NumPy: behind a model, with cold caches, each call into it takes 15 microseconds, as long as all of
    this for ten classes; for a thousand the two are alike.

    Raises:
        EngineError: as `scores`; or "probabilities" that are not within 0..1.
    """
    _check_form(raw, spec)
    real: list[float] = raw[0].tolist()
    if spec.scale is not None and spec.zero_point is not None:
        zero, scale = spec.zero_point, f32(spec.scale)
        real = [(code - zero) * scale for code in real]
    if not math.isfinite(sum(real)):  # of 32-bit floats a sum of 64 bits does not overflow
        raise _not_numbers(np.array(real, np.float32))
    top = max(real)
    if spec.kind == "probabilities":
        slack = spec.scale or 1e-3  # rounding may leave 0..1 by one code
        if min(real) < -slack or top > 1 + slack:
            raise EngineError(
                f"the model gave probabilities in {min(real):.3g}..{top:.3g}",
                "a probability is between 0 and 1; these are rather logits",
                "export the bundle again with output.kind = logits",
            )
        return tuple(array("f", real))
    powers = [math.exp(score - top) for score in real]
    total = sum(powers)
    return tuple(array("f", [power / total for power in powers]))


def _check_form(raw: NDArray[np.generic], spec: Output) -> None:
    if raw.shape != spec.shape or raw.dtype != _dtype(spec.dtype):
        raise EngineError(
            f"the model gave {raw.dtype} {raw.shape}",
            f"the manifest states {spec.dtype} {spec.shape}",
            "export the bundle again",
        )


def _not_numbers(real: NDArray[np.float32]) -> EngineError:
    bad = np.flatnonzero(~np.isfinite(real))
    return EngineError(
        f"the model gave {real[bad[0]]} for class {bad[0]}",
        f"{bad.size} of {real.size} scores are not numbers",
        "run `device_runner selftest` on the bundle",
    )


@cache
def _dtype(name: str) -> np.dtype[np.generic]:
    return np.dtype(name)


def top_k(found: Sequence[float], labels: Sequence[str], k: int) -> list[Answer]:
    """The k most probable classes, the best first; equal ones keep the order of the labels."""
    order = sorted(range(len(found)), key=lambda index: -found[index])[:k]
    return [Answer(labels[index], index, found[index]) for index in order]
