"""A model that is exchanged again and again, and a configuration that is read again and again.

Swaps: a folder at 30 frames a second, of which each picture must be answered once and in order. Reloads:
a network camera; afterwards as many descriptors, threads and children are there as after the first.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from broker import wait_until
from camera import Camera

from benchmarks.field.costs import field_kib, make_images
from benchmarks.field.kills import variant
from benchmarks.field.soak import PORT, inventory, scrape
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.store.models import Store

SWAPS, RELOADS = 100, 200
FRAMES_PER_SWAP = 300  # more than any swap takes
MAX_GROWTH_KIB = 3 * 1024
HTTP = f"\n[http]\nport = {PORT}\n"


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """First the swaps, then the reloads."""
    swaps, reloads = max(round(SWAPS * scale), 1), max(round(RELOADS * scale), 2)
    result = {"swaps": swap(bundle, scratch / "swaps", swaps), "reloads": reload(bundle, scratch / "reloads", reloads)}
    s, r = result["swaps"], result["reloads"]
    checks = {
        "frames are missing, doubled or out of order": not s["in_order"],
        f"{s['swaps']} of {swaps} swaps were made": s["swaps"] != swaps,
        f"left behind: {r['left_behind']}": bool(r["left_behind"]),
        f"memory grew by {r['growth_kib']} KiB": r["growth_kib"] > MAX_GROWTH_KIB,
    }
    problems = [text for text, holds in checks.items() if holds]
    failure = Failure(what="a change was not clean", why="; ".join(problems), fix="mend it")
    return Measured(result, failure if problems else None, notes=(json.dumps(result),))


def swap(bundle: Path, folder: Path, n: int) -> dict[str, Any]:
    """Two bundles in turn, while a folder is read."""
    folder.mkdir()
    bundles = [variant(bundle, folder / f"b{i}", f"model {i}") for i in range(2)]
    store = Store(folder / "store")
    store.install(bundles[0], lambda *_: None)
    shots = folder / "shots"
    shots.mkdir()
    (folder / "0.jpg").write_bytes(make_images()[0])
    for i in range(n * FRAMES_PER_SWAP):
        os.link(folder / "0.jpg", shots / f"{i:06}.jpg")
    config = folder / "c.toml"
    config.write_text(f'store = "{folder}/store"\n[source]\nurl = "{shots}"\nfps = 30\n{HTTP}')
    lines = folder / "lines"
    child = start(config, lines)
    try:
        wait_until(lambda: scrape().get("frames_processed_total", 0) > 10, 60)
        for i in range(n):
            store.install(bundles[(i + 1) % 2], lambda *_: None)
            store.commit() if store.state.staged else store.rollback()  # the one before is kept, not staged again
            wait_until(lambda done=i: scrape().get("swaps_total", 0) > done, 60)
        swaps = int(scrape()["swaps_total"])
    finally:
        child.terminate()
        child.wait(20)
    seen = [json.loads(line) for line in lines.read_text().splitlines()]
    names = [Path(record["frame"]).name for record in seen]
    answered = all("label" in record for record in seen)
    in_order = answered and names == [f"{i:06}.jpg" for i in range(len(names))]
    return {"swaps": swaps, "frames": len(names), "in_order": in_order}


def reload(bundle: Path, folder: Path, n: int) -> dict[str, Any]:
    """SIGHUP, while a camera streams."""
    folder.mkdir()
    camera, config = Camera(make_images()), folder / "c.toml"
    config.write_text(f'bundle = "{bundle}"\n[source]\nurl = "{camera.url}"\n{HTTP}')
    child = start(config, folder / "lines")
    counts, memory = [], []
    try:
        wait_until(lambda: scrape().get("frames_processed_total", 0) > 0, 60)
        for _ in range(n):
            child.send_signal(signal.SIGHUP)
            wait_until(lambda: scrape().get("frames_processed_total", 0) < 1, 60)
            wait_until(lambda: scrape().get("frames_processed_total", 0) > 0, 60)
            counts.append(inventory(child.pid))
            memory.append(field_kib(child.pid, "Private_Dirty:"))
    finally:
        child.terminate()
        code = child.wait(20)
        camera.close()
    left = [name for name, count in counts[-1].items() if count > max(c[name] for c in counts[:2])]
    return {
        "reloads": n,
        "left_behind": left + ([f"exit code {code}"] if code else []),
        "growth_kib": memory[-1] - memory[min(10, n - 1)],
        "inventory": counts[-1],
    }


def start(config: Path, lines: Path) -> subprocess.Popen[bytes]:
    """A runner whose lines go to a file."""
    argv = [sys.executable, "-m", "device_runner", "run", str(config)]
    with lines.open("wb") as out:
        return subprocess.Popen(argv, stdout=out, stderr=subprocess.DEVNULL)
