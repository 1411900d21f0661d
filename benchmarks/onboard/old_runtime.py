"""tflite_runtime 2.14 on an emulated ARM: which bundles its kernels take, and whether their self-test holds there.

Its wheel wants a NumPy below 2, so both come into a folder of their own, in front of what the emulated board has.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.facts import ROOT
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from shrink.boards.emulator import emulated
from shrink.boards.places import places

CPU = "cortex-a72"
WHEELS = ("tflite-runtime==2.14.0", "numpy==1.26.4")
PLATFORMS = ("manylinux_2_34_aarch64", "manylinux2014_aarch64")
TAKEN = {"tflite-int8-full": True, "tflite-fp32": True, "tflite-int8": False}
"""Target -> whether this runtime knows the ops of the demo CNN's file."""
PASSED = re.compile(r"selftest ok: (\d+) golden images on (\S+ \S+);.* outputs by (\S+) \((\S+) allowed\)")


def measure(run: Path, scale: float, scratch: Path) -> Measured:
    """The self-test of every target that the run has, with both runtimes; any other outcome is a breach."""
    old = wheels(scratch / "site")
    rows = [
        {"target": target, "engine": engine, **selftest(run / target, engine, old if engine != "litert" else None)}
        for target in TAKEN
        if (run / target).is_dir()
        for engine in ("litert", "tflite_runtime")
    ]
    broken = [f"{row['target']} with {row['engine']}" for row in rows if row["passed"] != expected(row)]
    failure = Failure(what="a self-test went otherwise", why=", ".join(broken), fix="see the row") if broken else None
    return Measured(result={"cpu": CPU, "rows": rows}, failure=failure)


def expected(row: dict[str, Any]) -> bool:
    """LiteRT takes every file."""
    return row["engine"] == "litert" or TAKEN[row["target"]]


def wheels(site: Path) -> Path:
    """Install the old runtime for the emulated Python."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--target",
               str(site), "--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:", *platforms,
               *WHEELS]  # fmt: skip
    subprocess.run(command, check=True)
    return site


def selftest(bundle: Path, engine: str, first: Path | None) -> dict[str, Any]:
    """What `device_runner selftest` says on the emulated board; `first` comes in front of the board's packages."""
    board = emulated(f"qemu:{CPU}", places(os.environ))
    front = ":".join(str(path) for path in (first, ROOT) if path is not None)
    python = [w.replace("PYTHONPATH=", f"PYTHONPATH={front}:", 1) for w in board.python]
    argv = [*python, "-m", "device_runner", "selftest", str(bundle), "--engine", engine]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **board.environment})
    found = PASSED.search(done.stdout)
    if done.returncode or found is None:
        return {"passed": False, "said": done.stderr.strip().splitlines()[-3:]}
    n, runtime, apart, allowed = found.groups()
    return {"passed": True, "images": int(n), "runtime": runtime, "apart": float(apart), "allowed": float(allowed)}
