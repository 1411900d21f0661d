"""What a target can do: one data file each, read into `Target`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from importlib.util import find_spec
from typing import Literal

import msgspec

from shrink.errors import RecipeError, RequestError, nearest

GRIDS = {"convolutions": "pixel_grid", "always": "pixel_grid_always"}
"""Which first layers read grey levels -> the rewrite that lets them; a patch embedding does not need it."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A format, a precision and the runtime that will execute it."""

    name: str
    summary: str
    format: Literal["tflite", "onnx"]
    precision: Literal["int8", "int16x8", "fp16", "fp32"]
    engine: str  # device_runner engine that verifies it
    float_twin: str  # the target that its size and latency are compared with
    layout: Literal["NHWC", "NCHW"]  # of the image input
    activation_codes: Literal["int8", "uint8"] = "int8"  # how the runtime likes 8-bit activations on x86 and ARM
    ranges: Literal["mixed", "run-time", "calibrated"] = "mixed"  # of activations: where it pays, none, all
    borders: tuple[Literal["mixed", "static", "dynamic"], ...] = ()  # input ranges beside float ops, fastest first
    float_output: bool = False  # whether an integer linear may answer in float, with no codes for its output
    dynamic_conv: bool = False  # whether a convolution may take its input range at run time
    dynamic_inputs: int = 1  # per output, from which on 8-bit weights with run-time input ranges save time
    dynamic_rows: bool = False  # whether run-time input ranges are taken per row, or over the whole tensor
    float_amid: tuple[str, ...] = ()  # ATen ops with weights that the file keeps in float where others are in int8
    pixel_grid: Literal["", "convolutions", "always"] = ""  # whose codes of the image are made the grey levels
    io: Literal["float32", "int8"] = "float32"  # of input and output; int8: no floats in the file at all
    rival: str = ""  # the target to compare with, whose speed and answers this one may not reach
    lower: tuple[str, ...] = ()  # rewrites of shrink.graph.lower, in order
    compute: tuple[str, ...] = ()  # ATen ops with weights, run in int8
    follow: tuple[str, ...] = ()  # ATen ops run in int8 between others that are
    view: tuple[str, ...] = ()  # ATen ops that only move 8-bit codes
    least_slope: float = 0.0  # of a leaky ReLU on codes
    rounded: tuple[str, ...] = ()  # ATen ops in float whose values are rounded where they scale many codes
    same: tuple[str, ...] = ()  # follow ops whose output must keep the scale of their input
    shared: tuple[str, ...] = ()  # follow ops that are faster if it does
    clamp: tuple[str, ...] = ()  # activations that a runtime fuses into the op before them

    @property
    def calibrated(self) -> bool:
        """Whether calibration images are needed."""
        return self.precision in ("int8", "int16x8")

    @property
    def rewrites(self) -> tuple[str, ...]:
        """All rewrites of the graph; targets with the same ones share a graph."""
        return (*self.lower, GRIDS[self.pixel_grid]) if self.pixel_grid else self.lower


PACKAGES = {
    "tflite": {"ai_edge_litert": "ai-edge-litert", "litert_torch": "litert-torch"},
    "onnx": {"onnxruntime": "onnxruntime", "onnx": "onnx", "onnxscript": "onnxscript"},
}
"""format -> module that writes or runs it, and the package to install for it."""


def check_installed(wanted: Iterable[str]) -> None:
    """Refuse a target that cannot be written or run here.

    Raises:
        RecipeError: there is no target of a name.
        RequestError: a module is missing; says what to install.
    """
    for target in map(load, wanted):
        for module, package in PACKAGES[target.format].items():
            if find_spec(module) is None:
                why = f"there is no module {module}, which writes or runs {target.format} files"
                raise RequestError(
                    f"{target.name} needs {package}, which is not installed", why, f"pip install {package}"
                )


def names() -> tuple[str, ...]:
    """Names of all targets, sorted."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml") and f.name[0] != "_"))


def load(name: str) -> Target:
    """Read a target.

    Raises:
        RecipeError: there is no target of that name.
    """
    if name not in names():
        why = "each target is a data file of shrink; `shrink targets list` lists them"
        raise RecipeError(f"unknown target {name!r}", why, nearest(name, names()))
    folder = resources.files(__package__)
    data = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
    if base := data.pop("runtime", None):
        data |= tomllib.loads((folder / f"_{base}.toml").read_text(encoding="utf-8"))
    return msgspec.convert(data | {"name": name}, type=Target, strict=True)
