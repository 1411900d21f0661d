"""What a file must be, as a user writes it: `int8=0.95`, `partitions=1`, `size=500kB`.

A row of `KEYS` says how its value is written, what the file has instead, and which of the two may be larger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shrink.errors import RequestError, nearest
from shrink.inspect.truth import Inspection, delegated_share

UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
OLD = "2.14"


def _share(text: str) -> float | None:
    """0.95 or 95%."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
    value = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    return value if 0 <= value <= 1 else None


def _count(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,9}", text) else None


def _bytes(text: str) -> float | None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text)
    return float(found[1]) * UNITS[found[2]] if found and found[2] in UNITS else None


def _old(text: str) -> float | None:
    return 1.0 if text == OLD else None


def _runs(found: Inspection) -> float | None:
    return None if found.old_runtime is None else float(found.old_runtime.runs)


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that can be required."""

    words: str  # what it is
    example: str
    parse: Callable[[str], float | None]  # None: not understood
    of: Callable[[Inspection], float | None]  # None: files of this format do not have it
    at_least: bool  # else at most


KEYS: dict[str, Key] = {
    "int8": Key("share of MACs in int8, at least", "int8=0.95", _share, lambda f: f.truth.int8_mac_share, True),
    "static": Key("share of MACs in int8 with fixed ranges, at least", "static=0.95", _share,
                  lambda f: f.truth.int8_mac_share - f.truth.dynamic_mac_share, True),
    "weights": Key("share of weight bytes in int8, at least", "weights=0.95", _share,
                   lambda f: f.truth.int8_weight_share, True),
    "partitions": Key("delegate partitions, at most", "partitions=1", _count,
                      lambda f: f.truth.delegate_partitions, False),
    "delegated": Key("share of MACs that the delegate runs, at least", "delegated=1", _share,
                     lambda f: None if f.truth.delegate is None else delegated_share(f), True),
    "undelegated": Key("kinds of ops left to the runtime, at most", "undelegated=0", _count,
                       lambda f: None if f.truth.delegate is None else len(f.truth.undelegated_ops), False),
    "size": Key("size of the file, at most", "size=500kB", _bytes, lambda f: f.size_bytes, False),
    "opset": Key("ONNX op set, at most", "opset=21", _count, lambda f: f.opset, False),
    "tflite-runtime": Key("runs on this old runtime", f"tflite-runtime={OLD}", _old, _runs, True),
}  # fmt: skip
"""key -> what it means."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A key with the value that was asked for."""

    key: str
    text: str  # as written
    bound: float


def parse(texts: Sequence[str]) -> tuple[Requirement, ...]:
    """Requirements as written, each `KEY=VALUE`, several in one text with commas between.

    Raises:
        RequestError: not of that form, an unknown key, a key named twice, or a value out of range.
    """
    wanted = [_one(part.strip()) for text in texts for part in text.split(",")]
    keys = [one.key for one in wanted]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise RequestError(f"--require names {twice[0]} twice", "only one value can hold", "name each key once")
    return tuple(wanted)


def _one(text: str) -> Requirement:
    key, equals, value = text.partition("=")
    if not equals:
        raise RequestError(f"--require {text!r} is not understood", "it is written KEY=VALUE", "use int8=0.95")
    if key not in KEYS:
        raise RequestError(f"--require does not know {key!r}", "nothing of that name is found", nearest(key, KEYS))
    bound = KEYS[key].parse(value)
    if bound is None:
        why = f"{key} is the {KEYS[key].words}"
        raise RequestError(f"--require {key} is {value!r}", why, f"write {KEYS[key].example}")
    return Requirement(key, text, bound)


def unmet(found: Inspection, wanted: Sequence[Requirement]) -> Iterator[str]:
    """A line for every requirement that the file does not meet.

    Raises:
        RequestError: something is required that files of this format do not have.
    """
    for one in wanted:
        key = KEYS[one.key]
        has = key.of(found)
        if has is None:
            why = f"a .{found.format} file has no {one.key}, or it is not known"
            raise RequestError(f"--require {one.text} cannot be checked", why, "leave it out for this file")
        if has < one.bound if key.at_least else has > one.bound:
            yield f"not met: {one.text}; it is {_written(one, has, found)}"


def _written(one: Requirement, has: float, found: Inspection) -> str:
    if one.key == "tflite-runtime":
        return str(found.old_runtime)
    return f"{has:,.0f}" if KEYS[one.key].parse is not _share else f"{has:.4g}"
