"""The zoo with 30 % fewer multiply-accumulates: can it be pruned, is that exact, and how long does it take.

Example: python -m benchmarks.pruning_zoo --only swin_t
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic, process_time
from typing import Annotated, Any

import msgspec
import typer

from benchmarks import child, report
from benchmarks.architectures import ZOO
from benchmarks.facts import ROOT
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import RESULTS, Failure, Setting, Store

LEFT = 0.7  # of the multiply-accumulates
LIMIT_SECONDS = 300.0
PEER_SECONDS = 100.0
QUICK = ("mobilenet_v2", "shufflenet_v2_x1_0", "deit_tiny_patch16_224", "swin_t")


def main(
    only: Annotated[list[str] | None, typer.Option(help="Measure this one, also if it is there; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Four architectures that are unlike each other.")] = False,
    convert: Annotated[bool, typer.Option("--convert", help="Also write a float .tflite and compare.")] = False,
    peer_python: Annotated[
        str | None, typer.Option(help="Interpreter of an environment with torch-pruning: ask that, too.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Prune architectures with random weights by magnitude, one child process each."""
    names = only or list(QUICK if quick else ZOO)
    settings: dict[str, dict[str, Setting]] = {
        name: {"left": LEFT, "convert": convert, "peer": peer_python is not None} for name in names
    }
    measures = {name: partial(beside_peer, name, convert, peer_python) for name in names}
    failed = run_rows(Store("pruning_zoo", results), measures, settings, Again(again or bool(only), keep))
    report.write(results)
    typer.echo(f"{len(names) - failed} of {len(names)} architectures pruned; see {results / 'README.md'}")


def beside_peer(name: str, convert: bool, peer_python: str | None, scratch: Path) -> Measured:
    """Ours, and what Torch-Pruning makes of the same architecture."""
    mine = in_child(name, convert, scratch)
    return (
        mine
        if peer_python is None
        else replace(mine, result=mine.result | {"torch_pruning": peer(name, peer_python, scratch)})
    )


def peer(name: str, python: str, scratch: Path) -> dict[str, Any]:
    """One architecture by Torch-Pruning in a process of its own; `failure` is None if its model answers."""
    out = scratch / "peer.json"
    command = [python, "-m", "benchmarks.peers.torch_pruning", "--model", ZOO[name].spec, "--left", str(LEFT)]
    ended = child.run([*command, "--out", str(out)], cwd=ROOT, scratch=scratch, limit_seconds=PEER_SECONDS)
    failure = child.failure(ended, "Torch-Pruning")
    if failure is not None:
        return {"failure": msgspec.to_builtins(failure)}
    return {"failure": None, **msgspec.json.decode(out.read_bytes())}


def in_child(name: str, convert: bool, scratch: Path) -> Measured:
    """Measure one architecture in a process of its own."""
    out = scratch / "result.json"
    command = [sys.executable, "-m", "benchmarks.pruning_zoo_row", ZOO[name].spec, str(out), str(int(convert))]
    ended = child.run(command, cwd=ROOT, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    failure = child.failure(ended, "the measuring process")
    result: dict[str, Any] = msgspec.json.decode(out.read_bytes()) if out.is_file() else {}
    if failure is None and result["error"] > 1e-4:
        failure = Failure(what="pruning is not exact", why=f"scores differ by {result['error']:.1e}", fix="report it")
    return Measured(result, failure, ended.peak_mib)


class Stopwatch:
    """Seconds of each of several steps, and those of the processors, which other work on the machine hardly changes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._last = monotonic(), process_time()

    def lap(self, name: str) -> None:
        """The step that ends now."""
        now = monotonic(), process_time()
        self.seconds[name] = round(now[0] - self._last[0], 2)
        self.cpu_seconds[name] = round(now[1] - self._last[1], 2)
        self._last = now


if __name__ == "__main__":
    typer.run(main)
