"""The runtimes that can run a model; each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from device_runner.engines.base import Engine
from device_runner.errors import EngineError

ENGINES = {
    "litert": "device_runner.engines.litert:LiteRT",
    "tflite_runtime": "device_runner.engines.tflite_runtime:TFLiteRuntime",
    "onnxruntime": "device_runner.engines.onnxruntime:ONNXRuntime",
}
PACKAGES = {  # engine -> (what it imports, what to install)
    "litert": ("ai_edge_litert", "ai-edge-litert"),
    "tflite_runtime": ("tflite_runtime", "tflite-runtime 'numpy<2'"),
    "onnxruntime": ("onnxruntime", "onnxruntime"),
}
FORMATS = {  # model format -> engines that run it, the preferred first
    "tflite": ("litert", "tflite_runtime"),
    "onnx": ("onnxruntime",),
}


def open_engine(model: bytes, format: str, *, engine: str | None = None, threads: int = 1) -> Engine:
    """Load a model from verified bytes, never from a path.

    Args:
        model: the model file.
        format: "tflite" or "onnx".
        engine: a name in ENGINES; None takes the first installed one for the format.
        threads: >= 1.

    Raises:
        EngineError: no such engine, not installed, of another format, or it refuses the model.
    """
    name = engine or _first_installed(format)
    _check_choice(name, format)
    return _load(name)(model, threads)


def _first_installed(format: str) -> str:
    choice = FORMATS.get(format, ())
    installed = [name for name in choice if is_installed(name)]
    return (installed or [*choice, ""])[0]  # with none installed, the preferred one is the one to install


def is_installed(name: str) -> bool:
    """Whether the runtime's package is there; it is not imported."""
    return find_spec(PACKAGES[name][0]) is not None


def _check_choice(name: str, format: str) -> None:
    choice = FORMATS.get(format)
    if choice is None:
        raise EngineError(f"no engine runs {format!r} models", "the format is unknown", f"use {' or '.join(FORMATS)}")
    if name not in choice:
        why = f"it runs {_serves(name)}" if name in ENGINES else "there is no such engine"
        raise EngineError(f"{name!r} cannot run {format} models", why, f"use {' or '.join(choice)}")
    if not is_installed(name):
        module, package = PACKAGES[name]
        raise EngineError(f"{name} is not installed", f"there is no module {module}", f"pip install {package}")


def _serves(name: str) -> str:
    return ", ".join(format for format, choice in FORMATS.items() if name in choice)


def _load(name: str) -> Callable[[bytes, int], Engine]:
    module, kind = ENGINES[name].split(":")
    try:
        return cast(Callable[[bytes, int], Engine], getattr(import_module(module), kind))
    except (ImportError, AttributeError, OSError) as error:  # a wheel built for another numpy or libc
        raise EngineError(
            f"{name} is installed but cannot be imported",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            f"pip install --force-reinstall {PACKAGES[name][1]}",
        ) from error
