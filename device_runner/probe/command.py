"""`device_runner probe`: one measurement as one JSON object."""

from __future__ import annotations

from argparse import Namespace
from typing import TextIO

import msgspec

from device_runner.probe.probe import Request, measure
from device_runner.probe.timing import Limits


def probe(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Measure, and write the record as one line."""
    out.write(msgspec.json.encode(measure(request(arguments), _silent)).decode() + "\n")
    return 0


def request(arguments: Namespace) -> Request:
    """What the arguments ask for. Seconds and samples are of all repetitions together."""
    repeats = max(arguments.repeats, 1)
    limits = Limits(
        min_samples=-(-arguments.samples // repeats),
        min_seconds=arguments.seconds / repeats,
        max_seconds=max(4 * arguments.seconds / repeats, 1.0),
        warmup_seconds=10.0,
        window=10,
    )
    return Request(
        bundle=arguments.bundle,
        images=arguments.images,
        against=arguments.against,
        engine=arguments.engine,
        threads=arguments.threads,
        repeats=arguments.repeats,
        limits=limits,
        pause_s=arguments.pause,
    )


def _silent(what: str, done: int, total: int) -> None:
    """A command of its own shows nothing."""
