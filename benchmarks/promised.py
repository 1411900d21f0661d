"""Rows that are each a module of their own with a promise in it: what `boards` and `runner` have in common."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks import report
from benchmarks.facts import ROOT
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import Setting, Store


def run_promises(store: Store, modules: Mapping[str, str], subject: Path, scale: float, again: Again) -> int:
    """Measure and write the tables; returns how many promises are broken.

    Args:
        store: where the rows go.
        modules: name of a row -> its module, with `measure(subject, scale, scratch)`.
        subject: a bundle or a run, which must exist.
        scale: do so much of the full amount.
    """
    settings: dict[str, dict[str, Setting]] = {name: {"scale": scale} for name in modules}
    measures = {name: partial(_measure, module, subject.resolve(), scale) for name, module in modules.items()}
    failed = run_rows(store, measures, settings, again)
    report.write(store.root)
    return failed


def use_helpers_of(tests: Sequence[str]) -> None:
    """Let modules import what the tests of these rooms have for themselves: servers, brokers, bundles."""
    sys.path[:0] = [str(ROOT / "tests" / room) for room in tests]


def _measure(module: str, subject: Path, scale: float, scratch: Path) -> Measured:
    found: Measured = import_module(module).measure(subject, scale, scratch)
    return found
