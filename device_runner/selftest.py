"""Replays the golden images: does this device give the answers it must?

Three steps, each from the golden record of the one before, so a failure names where it began:
decoding and pixels; normalizing and encoding; the model on this runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runner import preprocess
from device_runner.bundle import Bundle
from device_runner.contract import GOLDEN_NAME
from device_runner.engines.base import FIX, Engine
from device_runner.errors import BundleError, SelfTestError
from device_runner.golden import Golden, digest, read_golden
from device_runner.manifest import Manifest
from device_runner.postprocess import confidences, scores

MAX_PIXEL_DIFFERENCE = 1  # of 255: JPEG decoders may round differently
TOLERANCE_QUANTIZED = 0.02  # of the golden outputs' range
TOLERANCE_FLOAT = 0.001
TIMES_SPREAD = 1.5  # a third set of kernels may lie further off than the two that were compared
TOLERANCE_OTHER_KERNELS = 0.05  # of the range, at most, however far those two were apart


class OtherOutputError(SelfTestError):
    """The model itself answers otherwise; its input was exact."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What the replay found; it exists only if all passed."""

    n: int  # golden vectors replayed
    worst_pixel: int  # largest difference from the golden pixels, of 255
    worst_output: float  # largest difference from the golden outputs, in real numbers
    tolerance: float  # what worst_output may be at most
    ok: bool = True


def selftest(bundle: Bundle, engine: Engine) -> SelfTest:
    """Replay every golden vector of the bundle on the engine.

    Raises:
        SelfTestError: names the golden vector and the difference.
        BundleError: golden.npz is damaged or made for another model.
        EngineError: the engine fails, or answers with no numbers.
    """
    golden = read_golden(bundle.files[GOLDEN_NAME])
    _check_fits(golden, bundle.manifest)
    worst_pixel = max(check_pixels(golden, i, bundle.manifest) for i in range(len(golden)))
    want = np.stack([scores(raw[np.newaxis], bundle.manifest.output) for raw in golden.outputs])
    tolerance = output_tolerance(want, bundle.manifest, engine)
    answers = (answer(golden, i, bundle.manifest, engine) for i in range(len(golden)))
    try:
        worst_output = max(check_output(want[i], got, i, tolerance) for i, got in enumerate(answers))
    except OtherOutputError as problem:
        raise explained(problem, bundle.manifest, engine) from None
    return SelfTest(len(golden), worst_pixel, worst_output, tolerance)


def _check_fits(golden: Golden, m: Manifest) -> None:
    size = m.preprocess.crop or m.preprocess.size
    channels = len(m.preprocess.mean)
    fits = golden.pixels.shape[1:] == (*size, channels) and golden.outputs.shape[1] == len(m.labels)
    if not fits or golden.outputs.dtype != m.output.dtype:
        raise BundleError(
            f"{GOLDEN_NAME} is not of this model",
            f"pixels {golden.pixels.shape}, outputs {golden.outputs.dtype} {golden.outputs.shape}",
            "export the bundle again",
        )


def check_pixels(golden: Golden, i: int, m: Manifest) -> int:
    """Step 1: the i-th image file to pixels. Returns the largest difference, of 255."""
    got = preprocess.pixels(preprocess.decode(golden.image(i)), m.preprocess)
    worst = int(np.abs(got.astype(np.int16) - golden.pixels[i]).max())
    if worst > MAX_PIXEL_DIFFERENCE:
        raise _failed(f"golden image {i} gives other pixels", f"differing by up to {worst} of 255")
    return worst


def answer(golden: Golden, i: int, m: Manifest, engine: Engine) -> NDArray[np.float32]:
    """Step 2, golden pixels to an input that must be exact, and step 3, the engine on it: real scores."""
    x = preprocess.tensor(golden.pixels[i], m.preprocess, m.input)
    if not np.array_equal(digest(x), golden.inputs_sha256[i]):
        raise _failed(f"golden vector {i} gives another input tensor", "its SHA-256 is not the golden one")
    raw = engine.run(x)
    confidences(raw, m.output)  # refuses logits that are declared as probabilities
    return scores(raw, m.output)


def output_tolerance(want: NDArray[np.float32], m: Manifest, engine: Engine) -> float:
    """How far an output may be from its golden one, in real numbers; at least one code of a quantized output.

    An engine without the kernels of the record is held to it as closely as other kernels were when the bundle was
    made: in a network of 74 layers that is a few hundredths of the range.
    """
    share = TOLERANCE_QUANTIZED if is_quantized(m) else TOLERANCE_FLOAT
    width = float(want.max() - want.min())
    known = max(share * width, m.output.scale or 0.0)
    if not has_other_kernels(m, engine):
        return known
    return max(known, min(TIMES_SPREAD * (m.output.kernel_spread or 0.0), TOLERANCE_OTHER_KERNELS * width))


def has_other_kernels(m: Manifest, engine: Engine) -> bool:
    """Whether the golden record is of a delegate that the engine lacks, and that may show: integer kernels round."""
    return m.truth.delegate is not None and engine.delegate is None and is_quantized(m)


def is_quantized(m: Manifest) -> bool:
    """Whether anything of the model is computed on rounded numbers."""
    rounds = m.input.dtype != "float32" and m.input.values == "normalized"
    return m.truth.int8_mac_share > 0 or m.output.dtype != "float32" or rounds


def check_output(want: NDArray[np.float32], got: NDArray[np.float32], i: int, tolerance: float) -> float:
    """Same best class, unless golden itself is undecided, and close. Returns the largest difference."""
    worst = float(np.abs(want - got).max())
    if worst > tolerance * (1 + 1e-6):  # a difference of exactly one code must not fail by float rounding
        raise _other(f"golden vector {i} gives another output", f"differing by {worst:.4g}, allowed {tolerance:.4g}")
    best, second = np.sort(want)[::-1][:2] if want.size > 1 else (np.inf, 0.0)
    if want.argmax() != got.argmax() and best - second > tolerance:
        raise _other(
            f"golden vector {i} gives class {got.argmax()}, not {want.argmax()}",
            f"the golden scores are {best - second:.4g} apart, more than the {tolerance:.4g} allowed",
        )
    return worst


def explained(problem: OtherOutputError, m: Manifest, engine: Engine) -> SelfTestError:
    """Names the kernels where they may be all that differs: integer kernels round otherwise, layer after layer.

    It stays a refusal: beyond what was measured, a layer that is computed wrongly looks the same.
    """
    if not has_other_kernels(m, engine):
        return problem
    own = f"golden is of {m.truth.delegate}, and {engine.name} has kernels of its own, which round otherwise"
    fix = "use litert (pip install ai-edge-litert), or a bundle for tflite-fp32"
    return SelfTestError(problem.what, f"{problem.why}; {own}", fix)


def _failed(what: str, why: str) -> SelfTestError:
    return SelfTestError(what, why, FIX)


def _other(what: str, why: str) -> OtherOutputError:
    return OtherOutputError(what, why, FIX)
