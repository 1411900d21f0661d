"""A measurement for another program: arguments as on the command line, progress and result as plain objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from device_runner.cli import build_parser
from device_runner.errors import Problem
from device_runner.probe.command import request
from device_runner.probe.probe import measure

EVERY_S = 0.5

Said = dict[str, object]


def serve(arguments: Sequence[str], say: Callable[[Said], None]) -> Said:
    """Measure as `device_runner probe ARGUMENTS` would.

    Args:
        say: takes {"progress": [what, done, total]}, at most twice a second.

    Returns:
        {"result": a ProbeRecord as builtins}, or {"problem": [kind, what, why, fix]}.
    """
    last, when = "", 0.0

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last, when
        now = time.monotonic()
        if what != last or now - when >= EVERY_S:
            last, when = what, now
            say({"progress": [what, done, total]})

    try:
        asked = build_parser().parse_args(["probe", *arguments])
        return {"result": msgspec.to_builtins(measure(request(asked), tell))}
    except Problem as problem:
        return {"problem": [type(problem).__name__, problem.what, problem.why, problem.fix]}
