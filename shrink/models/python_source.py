"""Models made by a user's own function: `FILE.py:factory` or `package.module:factory`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from device_runner.manifest import Preprocess
from shrink.errors import ModelError, nearest
from shrink.models.spec import FORMS, Spec
from shrink.models.torchvision_compat import import_torchvision
from shrink.models.zoo import Built, timm_preprocess

NEEDED = ("input_size", "mean", "std", "crop_pct", "interpolation")  # a default for these would be a guess


def build(spec: Spec) -> Built:
    """Import the user's code and call its factory with the specification's arguments."""
    import_torchvision()  # the user's code may import it plainly
    folder = Path(spec.source).resolve().parent if spec.is_file else Path.cwd()
    with importable(folder):
        module = _import_file(spec) if spec.is_file else _import_module(spec)
        factory = _factory(spec, module)
        with _border(spec, f"{spec.name} of {spec.source} raised an error"):
            made = factory(**spec.arguments)
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"{spec.text} gives a {type(made).__name__}",
            "a factory returns the model itself, a torch.nn.Module",
            f"let {spec.name} return the module",
        )
    return Built(made, "factory", lambda: default_preprocess(made, spec), None)


def default_preprocess(module: nn.Module, spec: Spec) -> Preprocess:
    """From the module's `pretrained_cfg` or `default_cfg`, a dict with timm's keys."""
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if not isinstance(config, Mapping):
        why = "it has no `default_cfg`, so nothing tells how its images were prepared"
    elif missing := [key for key in NEEDED if config.get(key) is None]:
        why = f"its `default_cfg` lacks {', '.join(missing)}"
    else:
        return timm_preprocess(config, spec)
    raise ModelError(
        f"the preprocessing of {spec.text} is not known",
        why,
        f"give [preprocess] in the recipe, or set `default_cfg` on the module with {', '.join(NEEDED)}",
    )


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let the code import its neighbours, as `python FILE.py` would, for the time of the block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _import_file(spec: Spec) -> ModuleType:
    """Run the file as a module under a private name, so that it hides no module of its own name.

    It stays registered: dataclasses, pickle and torch's tracer look modules up by name.
    """
    path = Path(spec.source).resolve()
    if not path.is_file():
        fix = "check the path; it is relative to the current folder"
        raise ModelError(f"there is no file {spec.source}", f"the model is asked for as {spec.text}", fix)
    name = f"_shrink_model_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None  # by the suffix .py
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        with _border(spec, f"{spec.source} cannot be imported"):
            found.loader.exec_module(module)
    except ModelError:
        del sys.modules[name]
        raise
    return module


def _import_module(spec: Spec) -> ModuleType:
    try:
        known = importlib.util.find_spec(spec.source) is not None
    except (ImportError, ValueError, AttributeError):  # a parent package is missing or broken
        known = False
    if not known:
        close = nearest(spec.source, ["torchvision", "timm"])
        fix = f"{close} " if close.startswith("did you mean") else "install it, or run in the folder that holds it; "
        what = f"there is no Python module {spec.source!r}"
        raise ModelError(what, f"the model is asked for as {spec.text}", f"{fix}a model is written as {FORMS}")
    with _border(spec, f"{spec.source} cannot be imported"):
        return importlib.import_module(spec.source)


def _factory(spec: Spec, module: ModuleType) -> Callable[..., Any]:
    """The callable of that name, which takes these arguments."""
    own = [name for name, made in vars(module).items() if callable(made) and not name.startswith("_")]
    factory = getattr(module, spec.name, None)
    if not callable(factory):
        why = "there is no such name in it" if factory is None else f"it is a {type(factory).__name__}, not a function"
        fix = nearest(spec.name, own) if own else "define a function that returns the model"
        raise ModelError(f"{spec.source} has no factory {spec.name!r}", why, fix)
    parameters = _parameters(factory)
    unknown = [key for key in spec.arguments if parameters is not None and key not in parameters]
    if parameters is not None and unknown:
        why = f"it takes {', '.join(parameters) or 'no arguments'}"
        fix = nearest(unknown[0], parameters) if parameters else "leave the argument out"
        raise ModelError(f"{spec.name} does not take {unknown[0]!r}", why, fix)
    made: Callable[..., Any] = factory
    return made


def _parameters(factory: Callable[..., Any]) -> list[str] | None:
    """Names that can be given by keyword; None: any, or not known."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


@contextlib.contextmanager
def _border(spec: Spec, what: str) -> Iterator[None]:
    """Whatever the user's code raises becomes a ModelError that names the line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = str(error.msg if isinstance(error, SyntaxError) else error).strip().splitlines()
        text = f"{type(error).__name__}: {reason[0] if reason else 'no message'} ({_where(error, spec)})"
        raise ModelError(what, text, "correct the code at that line") from error


def _where(error: BaseException, spec: Spec) -> str:
    """`models.py, line 12`: the deepest line in the user's file, or the deepest of all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    file = str(Path(spec.source).resolve()) if spec.is_file else ""
    frame = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    return f"{frame.filename}, line {frame.lineno}"
