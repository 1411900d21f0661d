"""What the runner itself costs: time beside the model, time to the first answer without a network, memory."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.audit import Audit
from device_runner.bundle import open_bundle
from device_runner.clock import monotonic_ns
from device_runner.config.parts import Config, Rule, Source
from device_runner.frames import Frame
from device_runner.lines import record
from device_runner.loop import Loop
from device_runner.worker.model import Model
from device_runner.worker.process import ProcessWorker, Worker

FRAMES = 3000
MODEL_MS = 5.0  # of the model that the claim is about
LIMITS = {"overhead_inline": 0.02, "cold_start_s": 1.5, "memory_mib": 120.0}


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """Overhead per frame is what is neither preprocessing nor the engine."""
    n = max(int(FRAMES * scale), 100)
    images = make_images()
    model = Model.load(open_bundle(bundle))
    label = model.bundle.manifest.labels[0]
    result: dict[str, Any] = {"inline": per_frame(model, label, images, n)}
    worker = ProcessWorker(str(bundle), model.bundle.sha256).wait()
    result["process"] = per_frame(worker, label, images, n)
    worker.close()
    result |= cold_start(bundle, images[0], scratch)
    result["overhead_inline"] = result["inline"]["overhead_ms"] / MODEL_MS
    result["overhead_process"] = result["process"]["overhead_ms"] / MODEL_MS
    missed = [f"{name} {result[name]:.3g}, {limit} allowed" for name, limit in LIMITS.items() if result[name] > limit]
    failure = Failure(what="a target is missed", why="; ".join(missed), fix="measure on an idle machine, or mend it")
    return Measured(result, failure if missed else None, notes=(json.dumps(result),))


def make_images() -> list[bytes]:
    """Camera-like JPEG files, 320 x 240."""
    rng, files = np.random.default_rng(1), []
    for _ in range(16):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((320, 240))
        out = BytesIO()
        coarse.save(out, "JPEG", quality=85)
        files.append(out.getvalue())
    return files


def per_frame(worker: Worker, label: str, images: list[bytes], n: int) -> dict[str, float]:
    """Medians in milliseconds: the whole frame from source to line of JSON, its parts, and the rest."""
    rules = tuple(Rule(name=f"r{i}", label=label, min_confidence=0.9, k=2, n=3) for i in range(3))
    config = Config(source=Source(url="x"), bundle="b", rule=rules)
    labels = tuple(f"{i}" if i else label for i in range(10))
    loop = Loop(config, labels, worker, live=False, log=Audit(None, 4096), act=lambda record: None)
    whole, prepare, model, rest = [], [], [], []
    for i in range(n):
        frame = Frame(captured_ns=monotonic_ns(), name="", kind="file", size=(0, 0), data=images[i % len(images)])
        start = time.perf_counter_ns()
        decision = loop.frame(frame)
        line = json.dumps(record(decision, labels, 0.6))
        ms = (time.perf_counter_ns() - start) / 1e6
        assert decision.seen is not None and line
        whole.append(ms)
        prepare.append(decision.seen.prepare_ms)
        model.append(decision.seen.model_ms)
        rest.append(ms - decision.seen.prepare_ms - decision.seen.model_ms)
    names = ("whole_ms", "prepare_ms", "model_ms", "overhead_ms")
    return {k: round(statistics.median(v), 4) for k, v in zip(names, (whole, prepare, model, rest), strict=True)}


def cold_start(bundle: Path, image: bytes, scratch: Path) -> dict[str, float]:
    """Start to first answer, best of five, and the largest resident set of all its processes; without a network."""
    (scratch / "shots").mkdir()
    (scratch / "shots" / "a.jpg").write_bytes(image)
    config = scratch / "c.toml"
    config.write_text(f'bundle = "{bundle}"\n[source]\nurl = "{scratch}/shots"\n')
    isolated = shutil.which("unshare") is not None and os.geteuid() == 0
    argv = [*(["unshare", "-n"] if isolated else []), sys.executable, "-m", "device_runner", "run", str(config)]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert child.stdout is not None and child.stdout.readline()
        seconds.append(time.perf_counter() - start)
        child.communicate()
    memory = peak_memory(bundle, scratch)
    return {"cold_start_s": round(min(seconds), 3), "without_network": isolated, "memory_mib": memory}


def peak_memory(bundle: Path, scratch: Path) -> float:
    """Private and shared pages of the runner and its children at work, each page counted once (PSS), in MiB."""
    config = scratch / "m.toml"
    config.write_text(f'bundle = "{bundle}"\n[source]\nurl = "mjpeg:-"\n')
    argv = [sys.executable, "-m", "device_runner", "run", str(config)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdin is not None and child.stdout is not None
    image, pss = (scratch / "shots" / "a.jpg").read_bytes(), 0.0
    for _ in range(50):
        child.stdin.write(image)
        child.stdin.flush()
        time.sleep(0.05)
        pids = [child.pid, *map(int, Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split())]
        pss = max(pss, sum(field_kib(pid, "Pss:") for pid in pids) / 1024)
    child.stdin.close()
    child.stdout.read()
    child.wait()
    return round(pss, 1)


def field_kib(pid: int, name: str) -> int:
    """One number of /proc/PID/smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
