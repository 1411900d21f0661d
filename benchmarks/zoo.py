"""Coverage, parity, speed and size of many architectures, side by side with the peers.

Example: python -m benchmarks.zoo --set a
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from benchmarks import child, report, turns
from benchmarks.architectures import SETS, ZOO
from benchmarks.facts import ROOT
from benchmarks.images import SHARED
from benchmarks.loop import Again, Measured, known, run_rows
from benchmarks.peers import PEERS
from benchmarks.rows import RESULTS, Failure, Setting, Store
from benchmarks.zoo_result import Ask, Effort

CACHE = Path(tempfile.gettempdir(), "shrink-peers")
TURNS = Path(tempfile.gettempdir(), "shrink-zoo-turns")
TARGETS = ("tflite-fp32", "tflite-int8", "onnx-fp32", "onnx-int8")
QUICK_CALIBRATION, QUICK_JUDGED = 8, 2  # the fewest from which one image can be held out


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Measure this one, also if it is there; timm:NAME is off the list.")
    ] = None,
    set_: Annotated[Literal["a", "b"], typer.Option("--set", help="a: the five of every day; b: the whole zoo.")] = "b",
    quick: Annotated[
        bool, typer.Option("--quick", help="Few images, no timing, no peers: what converts, and does it answer.")
    ] = False,
    target: Annotated[list[str] | None, typer.Option(help="Make only this file; repeatable.")] = None,
    calibrate: Annotated[int, typer.Option(help="Calibration images.")] = 32,
    judge: Annotated[int, typer.Option(help="Other images, for agreement with torch.")] = 16,
    quantize: Annotated[Effort, typer.Option(help="Effort of our int8 files; --quick takes fast.")] = "balanced",
    peer: Annotated[list[str] | None, typer.Option(help="Only these peers; default all; 'none' for none.")] = None,
    peer_python: Annotated[str, typer.Option(help="Interpreter of the peers' environment.")] = sys.executable,
    rounds: Annotated[int, typer.Option(help="Fewest rounds of timing.")] = 50,
    seconds: Annotated[float, typer.Option(help="Most seconds of timing, per format.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the random weights and of the order of timing.")] = 0,
    shared: Annotated[Path, typer.Option(help="Optional data folder.")] = SHARED,
    cache: Annotated[Path, typer.Option(help="Keeps what peers made.")] = CACHE,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    limit: Annotated[float, typer.Option(help="Most seconds for one architecture.")] = 1800.0,
    memory: Annotated[float, typer.Option(help="Most GiB of address space for one architecture.")] = 20.0,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Measure architectures with random weights, one child process each, and write the tables.

    Examples:
        python -m benchmarks.zoo --quick --only mobilenet_v2
        python -m benchmarks.zoo --quick --only timm:xception41 --results out/zoo
    """
    names = only or SETS[set_]
    known([name for name in names if ":" not in name], ZOO, "architecture")
    specs = {row_name(name): ZOO[name].spec if name in ZOO else name for name in names}
    chosen = [] if quick or peer == ["none"] else known(peer, PEERS, "peer") if peer else list(PEERS)
    files = tuple(known(target, TARGETS, "target") if target else TARGETS)
    asks = {
        name: Ask(
            spec=spec, out="", scratch="", shared=str(shared.resolve()), cache=str(cache.resolve()),
            turns=str(TURNS),
            targets=files, calibrate=QUICK_CALIBRATION if quick else calibrate, judge=QUICK_JUDGED if quick else judge,
            timing=not quick, peers=tuple(chosen), peer_python=peer_python,
            min_rounds=rounds, max_seconds=seconds, seed=seed, quantize="fast" if quick else quantize,
        )
        for name, spec in specs.items()
    }  # fmt: skip
    store = Store("coverage" if quick else "zoo", results)
    measures = {name: partial(in_child, ask, limit, memory) for name, ask in asks.items()}
    asked = {name: settings(ask) for name, ask in asks.items()}
    failed = run_rows(store, measures, asked, Again(again or bool(only), keep))
    report.write(results)
    typer.echo(f"{len(specs) - failed} of {len(specs)} architectures without a crash; see {results / 'README.md'}")


def settings(ask: Ask) -> dict[str, Setting]:
    """The part of the question that is worth keeping: no folders of this machine."""
    kept = ("spec", "calibrate", "judge", "timing", "min_rounds", "max_seconds", "seed", "quantize")
    return {name: getattr(ask, name) for name in kept} | {
        "targets": " ".join(ask.targets),
        "peers": " ".join(ask.peers),
        "weights": hashlib.sha256(Path(__file__).with_name("randomize.py").read_bytes()).hexdigest()[:8],
    }


def in_child(ask: Ask, limit: float, memory: float, scratch: Path) -> Measured:
    """Measure one architecture in a process of its own; whatever becomes of it, there is a row."""
    asked, out = scratch / "ask.json", scratch / "result.json"
    complete = msgspec.structs.replace(ask, out=str(out), scratch=str(scratch))
    asked.write_bytes(msgspec.json.encode(complete))
    command = [sys.executable, "-m", "benchmarks.zoo_row", str(asked)]
    with turns.joined(Path(ask.turns)):  # here, as the child would import for seconds before it could be stopped
        ended = child.run(command, cwd=ROOT, scratch=scratch, limit_seconds=limit, memory_gib=memory)
    turns.release(Path(ask.turns))
    crash = child.failure(ended, "the measuring process")
    result: dict[str, Any] = msgspec.json.decode(out.read_bytes()) if out.is_file() else {}
    failure = crash or (Failure(**result["failure"]) if result.get("failure") else None)
    if crash is not None:
        blame(result, crash)
    failed = {name: part["failure"] for name, part in result.get("parts", {}).items() if part["failure"]}
    notes = tuple(f"{name}: {' / '.join((f['what'], f['why'], f['fix']))}" for name, f in failed.items())
    return Measured(result, failure, ended.peak_mib, notes)


def blame(result: dict[str, Any], crash: Failure) -> None:
    """Give a crash to the part that was being worked on, if there was one."""
    for part in result.get("parts", {}).values():
        if part["stage"] and part["failure"] is None:
            part["failure"] = msgspec.to_builtins(crash)


def row_name(spec: str) -> str:
    """A name for the row of a model: that of the zoo, or what its library calls it."""
    return (spec.partition(":")[2] or spec).partition("?")[0]


if __name__ == "__main__":
    typer.run(main)
