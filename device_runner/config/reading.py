"""Reads a configuration file; everything wrong in it is said in three lines."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from device_runner.config import contradictions
from device_runner.config.parts import Config, Part
from device_runner.errors import ConfigError

MAX_CONFIG_BYTES = 1 << 20


def read(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: not readable, not TOML, or a value that is wrong by itself or beside another.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or str(error), "check the path") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is too large", f"it has over {MAX_CONFIG_BYTES} bytes", "name a configuration file")
    return parse(raw, str(path))


def parse(raw: bytes, where: str = "the configuration") -> Config:
    """The same, of the bytes of the file."""
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{where} is not TOML", str(error), "mend that line") from error
    _check_keys(content, Config, "")
    try:
        config = msgspec.convert(content, Config)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$.")
        key = place.rstrip("`") or where
        raise ConfigError(f"{key} is wrong", what, f"correct {key}; the README lists what it may be") from error
    contradictions.check(config)
    return config


def _check_keys(content: Any, kind: Any, at: str) -> None:
    """Name the first unknown or missing key anywhere, with the nearest known one."""
    if not isinstance(content, dict):
        return
    hints = get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            near = get_close_matches(key, hints, 1)
            fix = f"did you mean {at}{near[0]}?" if near else f"known here: {', '.join(sorted(hints))}"
            raise ConfigError(f"{at}{key} is unknown", "a key that is ignored would be a rule that is ignored", fix)
        part = _part(hints[key])
        if part is not None:
            for i, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
                _check_keys(item, part, f"{at}{key}." if i is None else f"{at}{key}[{i}].")
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in content:
            raise ConfigError(f"{at}{field.name} is missing", "it has no default", f"add {at}{field.name}")


def _part(hint: Any) -> type[Part] | None:
    """The Part that a field holds, alone, optional or many of it."""
    if isinstance(hint, type) and not get_origin(hint) and issubclass(hint, Part):
        return hint
    if get_origin(hint) in (tuple, Union, UnionType):
        return next(filter(None, map(_part, get_args(hint))), None)
    return None
