"""`shrink search` on the demo CNN: what it finds and how soon, what a second worker saves, and what a kill costs.

Example: python -m benchmarks.search --only demo
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from benchmarks import child, report
from benchmarks.demo import DEBIAN_DIR
from benchmarks.facts import ROOT
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import RESULTS, Failure, Setting, Store
from benchmarks.tune import fashion_mnist, some
from shrink.search import front
from shrink.search.study import read

RECIPE = ROOT / "recipes" / "fashion_cnn.toml"
GOAL = ("--max-drop", "0.5", "--smaller", "3", "--faster", "2")
LIMIT_SECONDS = 3600.0
KILLS = 20
JUDGED = 10_000  # test images of the search for the winner
SIDES = range(20, 44)  # as many points as no 20 workers can try
TRIAL_SECONDS = 300.0  # in which a worker should finish a trial


def main(
    only: Annotated[list[str] | None, typer.Option(help="demo, one_worker, two_workers or kills; repeatable.")] = None,
    trials: Annotated[int, typer.Option(help="Of the search for the winner.")] = 2,
    images: Annotated[int, typer.Option(help="To train on in the search for the winner.")] = 60_000,
    shared_trials: Annotated[int, typer.Option(help="Of the searches by one worker and by two.")] = 8,
    fashion: Annotated[Path, typer.Option(help="Fashion-MNIST's files.")] = DEBIAN_DIR,
    results: Annotated[Path, typer.Option(help="Where the rows go.")] = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Measure rows that are there, too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows of other states of the sources, too.")] = False,
) -> None:
    """Search the demo CNN for a file at least 3 times smaller and 2 times faster within 0.5 points."""
    counts = {"demo": trials, "one_worker": shared_trials, "two_workers": shared_trials, "kills": KILLS}
    names = only or list(counts)
    settings: dict[str, dict[str, Setting]] = {name: {"count": counts[name], "goal": " ".join(GOAL)} for name in names}
    if "demo" in settings:
        settings["demo"]["images"] = images
    rows: dict[str, Callable[[int, Path], Measured]] = {
        "demo": partial(measure_demo, fashion, images),
        "one_worker": partial(measure_workers, 1),
        "two_workers": partial(measure_workers, 2),
        "kills": measure_kills,
    }
    measures = {name: partial(rows[name], counts[name]) for name in names}
    run_rows(Store("search", results), measures, settings, Again(again or bool(only), keep))
    report.write(results)


def command(out: Path, *options: str) -> list[str]:
    """A search, as a user types it."""
    return [sys.executable, "-m", "shrink.cli", "search", "--recipe", str(RECIPE), *GOAL, "--out", str(out), *options]


def measure_demo(fashion: Path, images: int, trials: int, scratch: Path) -> Measured:
    """One worker, to the exported winner."""
    out, data = scratch / "out", some(fashion_mnist(fashion), images, JUDGED, scratch / "data.npz")
    words = command(out, "--target", "tflite-int8", "--trials", str(trials), "--epochs", "7", "--prune", "4x")
    words += ["--data", str(data), "--calibrate", "1024"]
    before = _cpu_seconds()
    ended = child.run(words, cwd=ROOT, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    seconds = {"wall_seconds": ended.seconds, "cpu_seconds": round(_cpu_seconds() - before, 2)}
    result: dict[str, Any] = {**seconds, "exit_code": ended.code, **found(out)}
    if (out / "winner" / "report.json").is_file():
        exported = msgspec.json.decode((out / "winner" / "report.json").read_bytes())
        (artifact,) = exported["artifacts"]
        result["winner"] |= {"verdict": exported["verdict"], "accuracy": artifact["accuracy"]}
        result["winner"]["unseen"] = [line for line in ended.out.splitlines() if "did not look" in line]
    failure = None if ended.code in (0, 3) else child.failure(ended, "shrink search")
    return Measured(result, failure, ended.peak_mib)


def found(out: Path) -> dict[str, Any]:
    """What a study holds: every trial with a result, the winner, and how many were given up."""
    head, entries, note = read(str(out / "study.journal"))
    best = front.winner(head.goal, entries)
    states = [entry.state for entry in entries]
    return {
        "note": note,
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "points": [_row(entry) for entry in entries],
        "winner": None if best is None else _row(best),
    }


def _row(entry: Any) -> dict[str, Any]:
    figures = {} if entry.result is None else msgspec.to_builtins(entry.result.figures)
    return {"number": entry.number, "point": str(entry.point), "state": entry.state, "why": entry.why, **figures}


def measure_workers(count: int, trials: int, scratch: Path) -> Measured:
    """So many trials by workers that begin together: wall time until the last has ended."""
    out = scratch / "out"
    words = command(out, "--target", "onnx-int8", "--quantize", "fast", "--resolution", "28")
    words += ["--trials", str(trials), "--worker"]
    start, before = time.monotonic(), _cpu_seconds()
    running = [subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL) for _ in range(count)]
    codes = [process.wait(LIMIT_SECONDS) for process in running]
    seconds = {"wall_seconds": round(time.monotonic() - start, 2), "cpu_seconds": round(_cpu_seconds() - before, 2)}
    if any(codes):
        return Measured({"codes": codes}, Failure(what="a worker failed", why=str(codes), fix="run it by hand"))
    return Measured({"workers": count, **seconds, "trials": found(out)["trials"]})


def _cpu_seconds() -> float:
    """Of all children that have ended, on all cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_kills(kills: int, scratch: Path) -> Measured:
    """Kill -9 a worker again and again; whole models only (1.02x comes to nothing), so that trials are short."""
    out, rng = scratch / "out", random.Random(0)
    words = command(out, "--target", "onnx-fp32", "--target", "onnx-fp16", "--prune", "1.02x", "--worker")
    words += [word for side in SIDES for word in ("--resolution", str(side))]
    lost = 0
    for _ in range(kills):
        known, begun = len(_finished(out)), time.monotonic()
        process = subprocess.Popen([*words, "--trials", "1000"], cwd=ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(_finished(out)) == known and time.monotonic() - begun < TRIAL_SECONDS:
            time.sleep(0.5)
        time.sleep(rng.uniform(0.0, 15.0))  # into the next trial
        before = _finished(out)
        process.kill()
        process.wait()
        after = _finished(out)
        lost += len(set(before) - set(after)) + sum(before[n] != after[n] for n in set(before) & set(after))
    _, entries, note = read(str(out / "study.journal"))
    running = sum(entry.state == "running" for entry in entries)
    result = {"kills": kills, "finished": len(_finished(out)), "lost": lost, "running": running, "note": note}
    bad = lost or note or running > kills or len(_finished(out)) < kills
    return Measured(result, Failure(what="a trial was lost", why=str(result), fix="look at the study") if bad else None)


def _finished(out: Path) -> dict[int, bytes]:
    place = out / "study.journal"
    entries = read(str(place))[1] if place.exists() and place.stat().st_size else []
    ended = (entry for entry in entries if entry.state in ("done", "given up"))
    return {entry.number: msgspec.json.encode((entry.state, entry.result)) for entry in ended}


if __name__ == "__main__":
    typer.run(main)
