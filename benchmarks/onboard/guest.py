"""Runs on the emulated processor: one process that loads the bundle once, and a child of it for every count.

A start takes seconds, nearly all of them imports; a child begins where its parent was, and counts in a tenth of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Plant = tuple[str, str, int]
"""Kind, place, repetitions; 0: nothing is planted."""


def _loop(n: int) -> object:
    for _ in range(n):
        pass
    return None


def _objects(n: int) -> object:
    return [[] for _ in range(n)]


def _text(n: int) -> object:
    return [str(number) for number in range(n)]


KINDS: dict[str, Callable[[int], object]] = {"loop": _loop, "objects": _objects, "text": _text}
PLACES = ("decode", "pixels", "tensor")


def planted(work: Callable[..., Any], kind: str, n: int) -> Callable[..., Any]:
    """The same function, with more to do."""
    more = KINDS[kind]

    def slower(*arguments: Any) -> Any:
        more(n)
        return work(*arguments)

    return slower


def count_all(bundle: str, plants: list[Plant]) -> None:
    """One child after the other; each marks its rounds for the plugin."""
    from device_runner.classify import Classifier
    from device_runner.probe import counted

    classifier = Classifier.open(bundle)
    counted.rounds(classifier)  # marked, too: the counts of a whole process come first
    for kind, place, n in plants:
        child = os.fork()
        if not child:
            if n:
                setattr(counted, place, planted(getattr(counted, place), kind, n))
            counted.rounds(classifier)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"the count of {kind} in {place} failed")
