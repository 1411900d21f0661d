"""Many frames with everything around the runner breaking: memory must stay flat, and nothing be left behind.

A camera over HTTP that is lost, a broker that is killed, models that are exchanged. Memory is the private memory of
the runner's own process over the frames decided on (its children are replaced on the way); the slope is Theil and
Sen's. A control with a planted leak of one float a frame must be caught by the same measure.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from itertools import combinations
from pathlib import Path
from typing import Any

from broker import Broker
from camera import Camera

from benchmarks.field.costs import field_kib, make_images
from benchmarks.field.kills import variant
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.bundle import open_bundle
from device_runner.store.models import Store

FRAMES, CONTROL_FRAMES = 200_000, 60_000
SOURCE_LOSSES, BROKER_LOSSES, SWAPS = 20, 20, 10
MAX_SLOPE = 2.0  # bytes a frame
PORT = 19108
LEAK = """
import sys
from device_runner import cli
from device_runner.loop import Loop
leak, frame = [], Loop.frame
def leaking(self, f):
    decision = frame(self, f)
    leak.append(decision.age_ms + len(leak))
    return decision
Loop.frame = leaking
sys.exit(cli.main(sys.argv[1:]))
"""
CONFIG = """
store = "{folder}/store"
state = "{folder}/state"
dry_run = false
[source]
url = "{url}"
stall_s = 1
retry_max_s = 0.5
[http]
port = {port}
[mqtt]
host = "127.0.0.1"
port = {mqtt}
[[rule]]
name = "seen"
label = "{label}"
min_confidence = 0.2
cooldown_s = 1
action = "tell"
[[action]]
name = "tell"
delivery = "alert"
mqtt = "seen"
"""


class FastCamera(Camera):  # type: ignore[misc]  # the tests are not a typed package
    """As the camera of the tests, without its pauses."""

    pause_s = 0.0


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """The soak, then the control."""
    cameras, brokers, swaps = (max(round(n * scale), 1) for n in (SOURCE_LOSSES, BROKER_LOSSES, SWAPS))
    soaked = soak(bundle, scratch / "soak", int(FRAMES * scale), (cameras, brokers, swaps), leak=False)
    control = soak(bundle, scratch / "control", int(CONTROL_FRAMES * scale), (0, 0, 0), leak=True)
    result = {"soak": soaked, "control": control}
    problems = list(soaked["left_behind"])
    if soaked["slope_bytes_per_frame"] > MAX_SLOPE:
        problems.append(f"memory grows by {soaked['slope_bytes_per_frame']:.3g} bytes a frame")
    if control["slope_bytes_per_frame"] <= MAX_SLOPE:
        problems.append("the planted leak was not noticed")
    failure = Failure(what="the soak failed", why="; ".join(problems), fix="mend the leak")
    brief = {k: {n: v for n, v in r.items() if n != "samples"} for k, r in result.items()}
    return Measured(result, failure if problems else None, notes=(json.dumps(brief),))


def soak(bundle: Path, folder: Path, frames: int, plan: tuple[int, int, int], *, leak: bool) -> dict[str, Any]:
    """One run; `plan` says how many losses of source and broker and how many changes of model."""
    folder.mkdir()
    bundles = [variant(bundle, folder / f"b{i}", f"model {i}") for i in range(2)]
    store = Store(folder / "store")
    store.install(bundles[0], lambda *_: None)
    camera, broker = FastCamera(make_images()), Broker(folder)
    label = open_bundle(bundle).manifest.labels[0]
    config = folder / "c.toml"
    config.write_text(
        CONFIG.format(folder=folder, url=camera.url, port=PORT, mqtt=broker.port, label=label.replace('"', '\\"'))
    )
    program = ["-c", LEAK] if leak else ["-m", "device_runner"]
    argv = [sys.executable, *program, "run", str(config)]
    with (folder / "err").open("wb") as err:
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=err)
    events = sorted(
        (frames * (i + 1) / (n + 1), kind)
        for kind, n in zip(("source", "broker", "swap"), plan, strict=True)
        for i in range(n)
    )
    samples: list[tuple[int, int]] = []
    done, start, baseline = {"source": 0, "broker": 0, "swap": 0}, time.monotonic(), None
    try:
        while (metrics := scrape()).get("frames_processed_total", 0) < frames:
            if child.poll() is not None:
                raise RuntimeError(f"it ended with {child.returncode}: {(folder / 'err').read_text()[-500:]}")
            n = int(metrics.get("frames_processed_total", 0))
            if n > frames * 0.05:
                samples.append((n, field_kib(child.pid, "Private_Dirty:") * 1024))
                if metrics.get("source_live"):  # while the camera is lost there is one process less
                    baseline = baseline or inventory(child.pid)
            while events and n >= events[0][0]:
                kind = events.pop(0)[1]
                break_it(kind, camera, broker, store, bundles, done["swap"])
                done[kind] += 1
            time.sleep(0.25)
        after = settle(child.pid, baseline)
        last = scrape()
    finally:
        child.terminate()
        code = child.wait(20)
        camera.close()
        broker.kill()
    left = [
        f"{name}: {after[name]} instead of {count}" for name, count in (baseline or {}).items() if after[name] > count
    ]
    return {
        "frames": int(last["frames_processed_total"]),
        "seconds": round(time.monotonic() - start, 1),
        "events": done,
        "stalls": int(last["source_stalls_total"]),
        "swaps": int(last["swaps_total"]),
        "alerts_delivered": int(last["alerts_delivered_total"]),
        "slope_bytes_per_frame": round(theil_sen(samples), 3),
        "first_mib": round(samples[0][1] / 2**20, 2),
        "last_mib": round(samples[-1][1] / 2**20, 2),
        "left_behind": left + ([f"exit code {code}"] if code else []),
        "inventory": after,
        "samples": [list(s) for s in samples[:: max(len(samples) // 200, 1)]],
    }


def break_it(kind: str, camera: Camera, broker: Broker, store: Store, bundles: list[Path], swaps: int) -> None:
    """Lose the camera or the broker for a moment, or change the model."""
    if kind == "source":
        camera.fault = "close"
        time.sleep(0.5)
        camera.fault = None
    elif kind == "broker":
        broker.kill()
        time.sleep(0.5)
        broker.start()
    else:
        store.install(bundles[(swaps + 1) % 2], lambda *_: None)
        store.commit() if store.state.staged else store.rollback()


def scrape() -> dict[str, float]:
    """The runner's metrics; empty until it serves them."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=2) as page:
            text = page.read().decode()
    except OSError:
        return {}
    return {name: float(value) for name, value in re.findall(r"^device_runner_(\w+) (\S+)$", text, re.MULTILINE)}


def inventory(pid: int) -> dict[str, int]:
    """Descriptors, threads and children."""
    proc = Path(f"/proc/{pid}")
    children = [p for task in (proc / "task").iterdir() for p in (task / "children").read_text().split()]
    counts = {"descriptors": len(list((proc / "fd").iterdir())), "threads": len(list((proc / "task").iterdir()))}
    return counts | {"children": len(children), "shared memory": len(list(Path("/dev/shm").iterdir()))}


def settle(pid: int, baseline: dict[str, int] | None) -> dict[str, int]:
    """The inventory when all is calm again; what is still more after 10 s was left behind."""
    for _ in range(40):
        now = inventory(pid)
        if baseline is None or all(now[name] <= count for name, count in baseline.items()):
            break
        time.sleep(0.25)
    return now


def theil_sen(samples: list[tuple[int, int]]) -> float:
    """Median slope of all pairs, of at most 300 samples."""
    thin = samples[:: max(len(samples) // 300, 1)]
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(thin, 2) if b[0] > a[0])
