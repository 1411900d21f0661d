"""The parts of one image's way, marked for an emulator that counts instructions.

A process of its own, with one thread and nothing else to do: then the counts of two runs are equal to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from device_runner import postprocess
from device_runner.classify import Classifier
from device_runner.contract import GOLDEN_NAME
from device_runner.golden import read_golden
from device_runner.preprocess import decode, pixels, tensor
from device_runner.probe.markers import marked, no_collections

WARM, REPEATS = 3, 5


def count(bundle: str) -> None:
    """Load the bundle and mark some rounds of its first golden image, after some that are not marked."""
    rounds(Classifier.open(bundle))


def rounds(classifier: Classifier) -> None:
    """Some rounds that are not marked, and some that are."""
    m, engine = classifier.bundle.manifest, classifier.engine
    data = read_golden(classifier.bundle.files[GOLDEN_NAME]).image(0)

    def preprocess() -> object:
        return tensor(pixels(decode(data), m.preprocess), m.preprocess, m.input)

    x = tensor(pixels(decode(data), m.preprocess), m.preprocess, m.input)
    raw = engine.run(x)
    parts: dict[str, Callable[[], object]] = {
        "preprocess": preprocess,
        "invoke": partial(engine.run, x),
        "postprocess": partial(postprocess.confidences, raw, m.output),
    }
    for _ in range(WARM):
        for work in parts.values():
            work()
    with no_collections():
        for _ in range(REPEATS):
            for part, work in parts.items():
                marked(part, work)
