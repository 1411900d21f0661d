"""What a user writes to name a model: `SOURCE:NAME?key=value&key=value`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from shrink.errors import ModelError, nearest

Argument = int | float | bool | str

INTEGER = re.compile(r"[-+]?[0-9]+")
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
BOOLEANS = {"true": True, "false": False}
FORMS = "torchvision:NAME, timm:NAME, FILE.py:factory, package.module:factory or pruned:DIR"


@dataclass(frozen=True, slots=True)
class Spec:
    """A model as asked for, such as `timm:vit_tiny_patch16_224?img_size=192`."""

    text: str
    source: str  # "torchvision", "timm", "pruned", a path that ends in .py, or a dotted module name
    name: str  # a model of the library, a factory function, or a directory
    arguments: dict[str, Argument]  # handed to the factory by name

    @property
    def is_file(self) -> bool:
        return Path(self.source).suffix == ".py"


def parse(text: str) -> Spec:
    """Read a model specification.

    >>> parse("timm:resnet18?num_classes=5&pretrained=true").arguments
    {'num_classes': 5, 'pretrained': True}
    """
    head, _, query = text.partition("?")
    source, _, name = head.rpartition(":")
    if not source or not name:
        raise ModelError(
            f"{text!r} does not say where the model comes from",
            f"a model is written as {FORMS}",
            f"if it is a model of a library, write torchvision:{head.strip(':')} or timm:{head.strip(':')}",
        )
    return Spec(text, source, name, _arguments(text, query))


def value(text: str) -> Argument:
    """An int, a float, true/false, or else the text itself."""
    if INTEGER.fullmatch(text):
        return int(text)
    if DECIMAL.fullmatch(text):
        return float(text)
    return BOOLEANS.get(text.lower(), text)


def suggest(word: str, known: list[str], source: str) -> str:
    """The nearest name; for a library's thousand names, a way to list them rather than the list."""
    close = nearest(word, known)
    if close.startswith("did you mean") or len(known) <= 20:
        return close
    return f'list the names with: python -c "from shrink.models import zoo; print(*zoo.names({source!r}))"'


def _arguments(text: str, query: str) -> dict[str, Argument]:
    """`a=1&b=text` as a dict; every key once."""
    found: dict[str, Argument] = {}
    for part in query.split("&") if query else ():
        key, equals, raw = part.partition("=")
        if not key.isidentifier() or not equals or key in found:
            raise ModelError(
                f"the argument {part!r} in {text!r} cannot be read",
                "arguments are key=value joined by '&', each key once",
                "write it as in timm:resnet18?num_classes=5&in_chans=3",
            )
        found[key] = value(unquote(raw))
    return found
