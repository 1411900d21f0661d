"""What a user may ask of `shrink export`: frozen, typed, strict. A TOML file says all that the flags say."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from device_runner.manifest import Preprocess
from shrink.errors import RecipeError, nearest

PATH_KEYS = ("checkpoint",)
"""Keys whose value is a path; in a file it is relative to that file."""


class ExportRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """One export.

    Raises:
        RecipeError: a value is out of its range.
    """

    model: str  # torchvision:NAME, timm:NAME, FILE.py:factory or package.module:factory
    data: str  # an image folder, a CSV of path,label, an .npz, or a built-in name
    targets: tuple[str, ...] = ("tflite-int8", "onnx-int8")
    checkpoint: str | None = None  # safetensors, or a state dict
    calibrate: str = "256"  # a number of images, a folder or a CSV
    max_drop: float = 1.0  # points of top-1 that may be lost, >= 0
    preprocess: Preprocess | None = None  # None: the model's own
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 100:
            raise RecipeError(
                f"max_drop is {self.max_drop}",
                "it is the loss of top-1 that is allowed, in points",
                "use a number of 0 to 100, such as 1.0",
            )
        if not self.targets:
            raise RecipeError("targets is empty", "there is nothing to export", 'give one or more, such as "tflite-int8"')
        if len(set(self.targets)) != len(self.targets):
            raise RecipeError("a target is named twice", f"targets are {', '.join(self.targets)}", "name each once")


def combine(file: Path | None, flags: Mapping[str, Any]) -> ExportRecipe:
    """A recipe from a file, from flags, or both; a flag that is not None wins.

    Raises:
        RecipeError: the file is not TOML, a key is unknown, or a value is wrong or missing.
    """
    asked = dict(_read(file)) if file else {}
    asked |= {key: value for key, value in flags.items() if value is not None}
    return parse(asked, str(file) if file else "the flags")


def parse(asked: Mapping[str, Any], where: str) -> ExportRecipe:
    """Check every key and value.

    Args:
        asked: keys as in a recipe file.
        where: what to call the source in an error.
    """
    _known(asked, ExportRecipe, where, "")
    if isinstance(asked.get("preprocess"), Mapping):
        _known(asked["preprocess"], Preprocess, where, "preprocess.")
        asked = {**asked, "preprocess": {"crop": None, **asked["preprocess"]}}  # TOML has no word for "none"
    for key in ("model", "data"):
        if key not in asked:
            raise RecipeError(f"{key} is missing", f"{where} does not say it", f"give it, see `shrink export --help`")
    try:
        return msgspec.convert(dict(asked), type=ExportRecipe, strict=True)
    except msgspec.ValidationError as error:
        raise RecipeError(f"{where} has a wrong value", str(error), "see the recipes folder for examples") from error


def _known(asked: Mapping[str, Any], kind: type[msgspec.Struct], where: str, prefix: str) -> None:
    fields = kind.__struct_fields__
    for key in asked:
        if key not in fields:
            raise RecipeError(f"unknown key {prefix + key!r} in {where}", "no step reads it", nearest(key, fields))


def _read(file: Path) -> dict[str, Any]:
    try:
        asked = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe {file} cannot be read", str(error), "give a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe {file} is not TOML", str(error), "mend that line") from error
    for key in PATH_KEYS:
        if isinstance(asked.get(key), str):
            asked[key] = str(file.parent / asked[key])
    if isinstance(asked.get("model"), str) and asked["model"].partition(":")[0].endswith(".py"):
        asked["model"] = str(file.parent / asked["model"])
    return asked
