"""The same images here and on emulated ARM processors: which outputs are equal to the bit, how far apart the rest."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.loop import Measured
from benchmarks.rows import Failure
from shrink.bench.result import Measured as Side
from shrink.boards.kinds import board_of
from shrink.boards.places import places
from shrink.progress import Quiet
from shrink.steps import benching

IMAGES = 200
CPUS = ("cortex-a72", "cortex-a76")
EXACT = ("tflite-int8", "tflite-int8-full", "onnx-int8")
NEAR = ("tflite-fp32", "onnx-fp32")
MOST_APART = 5e-5  # of probabilities, in float


def measure(run: Path, scale: float, scratch: Path) -> Measured:
    """Every target that the run has, on every processor; int8 that is not bit-exact breaks the promise."""
    targets = [target for target in (*EXACT, *NEAR) if (run / target).is_dir()]
    rows, images = [], max(round(IMAGES * scale), 1)
    for target in targets:
        here, _ = bench(run / target, "local", images)
        for cpu in CPUS:
            there, seconds = bench(run / target, f"qemu:{cpu}", images)
            rows.append({"target": target, "cpu": cpu, "seconds": round(seconds, 1), **compared(here, there)})
    broken = [f"{row['target']} on {row['cpu']}" for row in rows if not kept(row)]
    failure = Failure(what="answers differ on ARM", why=", ".join(broken), fix="see the row") if broken else None
    return Measured(result={"rows": rows}, failure=failure)


def kept(row: dict[str, Any]) -> bool:
    """Whether int8 is equal to the bit, and float near enough."""
    exact: bool = row["same"] == row["images"]
    return exact or (row["target"] in NEAR and row["apart"] <= MOST_APART)


def bench(bundle: Path, url: str, images: int) -> tuple[Side, float]:
    """What `shrink bench --on URL --repeats 0` finds, and the seconds it takes."""
    start = time.monotonic()
    asked = benching.Request(bundle=bundle, images=images, repeats=0)
    found = benching.bench(asked, board_of(url, places(os.environ)), command=(), progress=Quiet())
    assert found.candidate, found.problem
    return found.candidate, time.monotonic() - start


def compared(here: Side, there: Side) -> dict[str, Any]:
    """How many raw outputs are equal bit by bit; how far apart the five best scores are at most."""
    pairs = list(zip(here.scores, there.scores, strict=True))
    apart = [abs(dict(mine)[k] - dict(other)[k]) for mine, other in pairs for k in dict(mine).keys() & dict(other)]
    return {
        "images": len(here.outputs_sha256),
        "same": sum(a == b for a, b in zip(here.outputs_sha256, there.outputs_sha256, strict=True)),
        "other_answers": sum(a != b for a, b in zip(here.answers, there.answers, strict=True)),
        "apart": max(apart, default=0.0),
    }
