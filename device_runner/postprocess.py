"""From the model's raw output to named answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from device_runner.errors import EngineError
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
    if raw.shape != spec.shape or raw.dtype != _dtype(spec.dtype):
        raise EngineError(
            f"the model gave {raw.dtype} {raw.shape}",
            f"the manifest states {spec.dtype} {spec.shape}",
            "export the bundle again",
        )
    real: NDArray[np.float32] = raw[0].astype(np.float32)
    if spec.scale is not None and spec.zero_point is not None:
        real -= np.float32(spec.zero_point)
        real *= np.float32(spec.scale)
    finite = np.isfinite(real)
    if not np.logical_and.reduce(finite):  # the ufunc itself: a method of the array is a detour, per frame
        bad = np.flatnonzero(~finite)
        raise EngineError(
            f"the model gave {real[bad[0]]} for class {bad[0]}",
            f"{bad.size} of {real.size} scores are not numbers",
            "run `device_runner selftest` on the bundle",
        )
    return real


def probabilities(raw: NDArray[np.generic], spec: Output) -> NDArray[np.float32]:
    """Confidence per class, shape (classes,): softmax of logits, or the model's own probabilities as they are.

    Raises:
        EngineError: as `scores`; or "probabilities" that are not within 0..1.
    """
    real = scores(raw, spec)
    if spec.kind == "probabilities":
        slack = spec.scale or 1e-3  # rounding may leave 0..1 by one code
        if real.min() < -slack or real.max() > 1 + slack:
            raise EngineError(
                f"the model gave probabilities in {real.min():.3g}..{real.max():.3g}",
                "a probability is between 0 and 1; these are rather logits",
                "export the bundle again with output.kind = logits",
            )
        return real
    shifted = np.subtract(real, np.maximum.reduce(real), dtype=np.float64)
    np.exp(shifted, out=shifted)
    shifted /= np.add.reduce(shifted)
    return shifted.astype(np.float32)


@cache
def _dtype(name: str) -> np.dtype[np.generic]:
    return np.dtype(name)


def top_k(probs: NDArray[np.float32], labels: Sequence[str], k: int) -> list[Answer]:
    """The k most probable classes, the best first; equal ones keep the order of the labels."""
    order = np.argsort(-probs, kind="stable")[:k]
    return [Answer(labels[i], int(i), float(probs[i])) for i in order]
