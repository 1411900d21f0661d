"""Half the multiply-accumulates: how much sooner does LiteRT answer, in float and in int8.

Making the files takes minutes, timing them seconds: `--make` before, on a machine with other work, and then the same
command without it when all is quiet.

Example: python -m benchmarks.pruning_speed --only swin_t
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

from benchmarks import child, facts, report
from benchmarks.architectures import ZOO
from benchmarks.facts import ROOT
from benchmarks.images import SHARED
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.pruning_speed_row import KINDS, SIZES, Made
from benchmarks.rows import RESULTS, Setting, Store

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "deit_tiny_patch16_224", "swin_t")
FILES = Path(tempfile.gettempdir(), "shrink-pruning-speed")
LIMIT_SECONDS = 1800.0
MIN_SECONDS = 4.0  # of timing, per kind of file


def main(
    only: Annotated[list[str] | None, typer.Option(help="Measure this one, also if it is there; repeatable.")] = None,
    factor: Annotated[float, typer.Option(help="How many times fewer multiply-accumulates.")] = 2.0,
    make: Annotated[bool, typer.Option("--make", help="Only make the files that are not there.")] = False,
    files: Annotated[Path, typer.Option(help="Keeps the files between runs.")] = FILES,
    shared: Annotated[Path, typer.Option(help="Optional data folder.")] = SHARED,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Prune architectures with random weights by magnitude, and time the files in turns with the unpruned ones."""
    names = list(only or NETWORKS)
    places = {name: files / f"{facts.conditions().code}-{factor:g}" / name for name in names}
    if make:
        with tempfile.TemporaryDirectory() as scratch:
            for name in names:
                made = make_files(name, factor, places[name], shared, Path(scratch))
                typer.echo(f"{name}: {made.failure or 'made'}")
        return
    settings: dict[str, dict[str, Setting]] = {name: {"factor": factor} for name in names}
    measures = {name: partial(measure, name, factor, places[name], shared) for name in names}
    run_rows(Store("pruning_speed", results), measures, settings, Again(again or bool(only), keep))
    report.write(results)


def make_files(name: str, factor: float, place: Path, shared: Path, scratch: Path) -> Measured:
    """All files of one network, in a process of its own, if they are not there."""
    if (place / "made.json").is_file():
        return Measured()
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.pruning_speed_row", ZOO[name].spec, str(factor), str(place)]
    ended = child.run([*command, str(shared)], cwd=ROOT, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    return Measured(failure=child.failure(ended, "making the files"), peak_mib=ended.peak_mib)


def measure(name: str, factor: float, place: Path, shared: Path, scratch: Path) -> Measured:
    """Time the pruned file of each kind in turns with the unpruned one."""
    made = make_files(name, factor, place, shared, scratch)
    if made.failure is not None:
        return made
    about = msgspec.json.decode((place / "made.json").read_bytes(), type=Made)
    result: dict[str, Any] = {"macs_before": about.macs_before, "macs_after": about.macs_after}
    result |= {kind: _timed(place, kind, about.input_shape) for kind in KINDS}
    return Measured(result, peak_mib=made.peak_mib)


def _timed(place: Path, kind: str, shape: tuple[int, ...]) -> dict[str, Any]:
    from device_runner.engines import open_engine
    from shrink.bench.latency import interleave, ratio

    rng = np.random.default_rng(0)
    x = rng.standard_normal((shape[0], *shape[2:], shape[1]), dtype=np.float32)  # (1, H, W, C)
    engines = {size: open_engine((place / f"{size}-{kind}").read_bytes(), "tflite") for size in SIZES}
    runs = {size: partial(engine.run, x) for size, engine in engines.items()}
    samples = interleave(runs, rng=rng, min_seconds=MIN_SECONDS)
    found = ratio(samples["whole"], samples["small"])
    times = {f"{size}_ms": tuple(round(ms, 4) for ms in samples[size].samples_ms) for size in SIZES}
    return {"speedup": found.median, "speedup_low": found.low, "speedup_high": found.high, **times}


if __name__ == "__main__":
    typer.run(main)
