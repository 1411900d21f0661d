"""What the runner itself costs: beside the model, to the first answer without a network, to verify, in memory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from benchmarks.field.bundles import make_keys
from benchmarks.field.slow_worker import repeat
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from benchmarks.turns import with_children
from device_runner import __version__
from device_runner.audit import Audit, sha256
from device_runner.bundle import open_bundle
from device_runner.clock import monotonic_ns
from device_runner.config.parts import Config, Rule, Source
from device_runner.frames import Frame
from device_runner.lines import record
from device_runner.loop import Loop
from device_runner.manifest import dump, parse
from device_runner.release import Release, check_release, write_release
from device_runner.worker.model import Model
from device_runner.worker.process import ProcessWorker, Worker

ROUNDS, FRAMES = 20, 25  # every variant in turn, so many frames each
MODEL_MS = 5.0  # of the model that the claim is about
RAW = (640, 480)
START_S, WAITING_S = 10.0, 30.0  # of a runner without camera and broker
LIMITS = {
    "overhead_inline": 0.02,
    "overhead_process": 0.02,
    "cold_start_s": 1.5,
    "memory_mib": 120.0,
    "verify_ms": 150.0,
    "waiting_cpu": 0.02,
}
VERIFIED_BYTES = 15 << 20


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """Overhead per frame is what is neither preprocessing nor the engine, as a share of the engine's time."""
    result: dict[str, Any] = beside_the_model(bundle, max(round(ROUNDS * scale), 1))
    images = make_images()
    result |= cold_start(bundle, images[0], scratch)
    result["verify_ms"] = verification(bundle, scratch / "large")
    result["waiting_cpu"] = waiting(bundle, scratch)
    result |= {f"overhead_{name}": result[f"{name}, jpeg"]["overhead"] for name in ("inline", "process")}
    missed = [f"{name} {result[name]:.3g}, {limit} allowed" for name, limit in LIMITS.items() if result[name] > limit]
    failure = Failure(what="a target is missed", why="; ".join(missed), fix="measure on an idle machine, or mend it")
    return Measured(result, failure if missed else None, notes=(json.dumps(result),))


def beside_the_model(bundle: Path, rounds: int) -> dict[str, dict[str, float]]:
    """What a frame costs, inline and with a process, as a file and as raw pixels; all in turn, round by round."""
    model = Model.load(open_bundle(bundle))
    times = slow_down(model, MODEL_MS)
    program = (sys.executable, "-m", "benchmarks.field.slow_worker", str(times))
    child = ProcessWorker(str(bundle), model.bundle.sha256, program=program).wait()
    frames = {"jpeg": [as_file(image) for image in make_images()], "raw": make_raw()}
    loops = {name: make_loop(worker) for name, worker in (("inline", model), ("process", child))}
    found: dict[str, list[tuple[float, float, float]]] = {f"{n}, {k}": [] for n in loops for k in frames}
    for _ in range(rounds):
        for name, kind in ((n, k) for n in loops for k in frames):
            found[f"{name}, {kind}"] += per_frame(loops[name], frames[kind])
    child.close()
    return {name: summary(rows) for name, rows in found.items()}


def slow_down(model: Model, to_ms: float) -> int:
    """Make the engine run as often as fills so many milliseconds; how often that is."""
    x = np.zeros(model.bundle.manifest.input.shape, model.bundle.manifest.input.dtype)
    costs = []
    for _ in range(50):
        start = time.perf_counter_ns()
        model.engine.run(x)
        costs.append((time.perf_counter_ns() - start) / 1e6)
    times = max(round(to_ms / min(costs)), 1)
    repeat(model, times)
    return times


def make_images() -> list[bytes]:
    """Camera-like JPEG files, 320 x 240."""
    rng, files = np.random.default_rng(1), []
    for _ in range(16):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((320, 240))
        out = BytesIO()
        coarse.save(out, "JPEG", quality=85)
        files.append(out.getvalue())
    return files


def as_file(data: bytes) -> Frame:
    """An encoded image as a frame."""
    return Frame(captured_ns=0, name="", kind="file", size=(0, 0), data=data)


def make_raw() -> list[Frame]:
    """Raw frames of a camera, 640 x 480."""
    rng = np.random.default_rng(2)
    pixels = [rng.integers(0, 256, (RAW[1], RAW[0], 3), dtype=np.uint8).tobytes() for _ in range(4)]
    return [Frame(captured_ns=0, name="", kind="rgb", size=RAW, data=data) for data in pixels]


def make_loop(worker: Worker) -> Loop:
    """A loop with three rules."""
    labels = tuple(map(str, range(10)))
    rules = tuple(Rule(name=f"r{i}", label="0", min_confidence=0.9, k=2, n=3) for i in range(3))
    config = Config(source=Source(url="x"), bundle="b", rule=rules)
    return Loop(config, labels, worker, live=False, log=Audit(None, 4096), act=lambda record: None)


def per_frame(loop: Loop, frames: list[Frame]) -> list[tuple[float, float, float]]:
    """(preprocessing, engine, everything else) in milliseconds of FRAMES frames, from source to line of JSON."""
    found = []
    for i in range(FRAMES):
        frame = msgspec.structs.replace(frames[i % len(frames)], captured_ns=monotonic_ns())
        start = time.perf_counter_ns()
        decision = loop.frame(frame)
        line = msgspec.json.encode(record(decision, loop.labels, 0.6))
        ms = (time.perf_counter_ns() - start) / 1e6
        assert decision.seen is not None and line
        seen = decision.seen
        found.append((seen.prepare_ms, seen.model_ms, ms - seen.prepare_ms - seen.model_ms))
    return found


def summary(rows: list[tuple[float, float, float]]) -> dict[str, float]:
    """Medians, and the rest as a share of the engine's time."""
    prepare, model, rest = (statistics.median(column) for column in zip(*rows, strict=True))
    ms = {"prepare_ms": round(prepare, 4), "model_ms": round(model, 4), "overhead_ms": round(rest, 4)}
    return ms | {"overhead": round(rest / model, 5)}


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


def verification(bundle: Path, folder: Path) -> float:
    """Milliseconds to read and verify a signed bundle whose model has 15 MiB, best of five."""
    shutil.copytree(bundle, folder)
    manifest = parse((folder / "manifest.json").read_bytes())
    path = folder / next(file.name for file in manifest.files if file.name.startswith("model."))
    data = path.read_bytes().ljust(VERIFIED_BYTES, b"\0")
    path.write_bytes(data)
    files = tuple(
        msgspec.structs.replace(file, sha256=sha256(data), size=len(data)) if file.name == path.name else file
        for file in manifest.files
    )
    (folder / "manifest.json").write_bytes(dump(msgspec.structs.replace(manifest, files=files)))
    keys, opened = make_keys(folder.parent), open_bundle(folder)
    release = Release(bundle=opened.sha256, version=1, kinds=(), min_runner=__version__)
    write_release(opened, folder, release, keys / "key")
    costs = []
    for _ in range(5):
        start = time.perf_counter()
        check_release(open_bundle(folder), str(keys / "trusted"), None, 0)
        costs.append((time.perf_counter() - start) * 1e3)
    return round(min(costs), 2)


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
        pss = max(pss, sum(field_kib(pid, "Pss:") for pid in with_children(child.pid)) / 1024)
    child.stdin.close()
    child.stdout.read()
    child.wait()
    return round(pss, 1)


def waiting(bundle: Path, scratch: Path) -> float:
    """Share of one processor that a runner takes while neither its camera nor its broker is there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # on which then nobody listens
    config = scratch / "w.toml"
    lines = [f'bundle = "{bundle}"', "[source]", f'url = "http://127.0.0.1:{port}/"']
    config.write_text("\n".join([*lines, "[mqtt]", 'host = "127.0.0.1"', f"port = {port}"]))
    argv = [sys.executable, "-m", "device_runner", "run", str(config)]
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(START_S)
    before, start = processor_s(child.pid), time.perf_counter()
    time.sleep(WAITING_S)
    share = (processor_s(child.pid) - before) / (time.perf_counter() - start)
    assert child.poll() is None
    child.terminate()
    child.wait()
    return round(share, 4)


def processor_s(pid: int) -> float:
    """Seconds of processor time of a process and of all children it has or had."""
    ticks = 0
    for number in with_children(pid):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # its own in user and kernel mode, and those of children that ended
    return ticks / os.sysconf("SC_CLK_TCK")


def field_kib(pid: int, name: str) -> int:
    """One number of /proc/PID/smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
