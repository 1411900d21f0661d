"""Who takes the events hangs: does the camera go on as before?

A camera of 50 frames a second, with rules that fire many times a second, and each kind of receiver that never takes
anything: a web server that does not answer, a program that ignores SIGTERM, a stopped broker, a reader of the lines
that sleeps. What counts is how many frames a second are answered, against that with no receiver at all.
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from broker import Broker, wait_until
from camera import Camera

from benchmarks.field.costs import make_images
from benchmarks.field.soak import PORT, scrape
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.bundle import open_bundle

ROUNDS, SECONDS = 3, 8.0  # every kind in turn
LEAST = 0.95  # of the rate without a receiver
Sink = Callable[[Path], AbstractContextManager[tuple[str, str]]]
"""A receiver: what the configuration has for it, and how its action is addressed ("" for none)."""


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """All kinds in turn, several times."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SINKS}
    for turn in range(ROUNDS):
        for name, sink in SINKS.items():
            folder = scratch / f"{turn}-{name}"
            folder.mkdir()
            with sink(folder) as (parts, address):
                quiet = name != "lines"
                found[name].append(answered(bundle, folder, parts, address, quiet=quiet, seconds=SECONDS * scale))
    fps = {name: statistics.median(one["fps"] for one in rounds) for name, rounds in found.items()}
    fired = {name: min(one["fired"] for one in rounds) for name, rounds in found.items()}
    problems = [
        f"with {name} {rate:.1f} frames a second are answered, {fps['none']:.1f} without"
        for name, rate in fps.items()
        if rate < LEAST * fps["none"]
    ] + [f"with {name} no rule fired" for name, count in fired.items() if not count]
    failure = Failure(what="a receiver that hangs costs frames", why="; ".join(problems), fix="mend it")
    result: dict[str, Any] = {"fps": fps, "fired": fired, "rounds": found}
    return Measured(result, failure if problems else None, notes=(json.dumps({"fps": fps, "fired": fired}),))


def answered(bundle: Path, folder: Path, parts: str, address: str, *, quiet: bool, seconds: float) -> dict[str, float]:
    """Frames a second that a runner answers, and how often its rules fired meanwhile."""
    camera, config = Camera(make_images()), folder / "c.toml"
    labels = open_bundle(bundle).manifest.labels
    config.write_text(configuration(bundle, folder, camera.url, labels, parts, address))
    out = subprocess.DEVNULL if quiet else subprocess.PIPE  # a pipe that nobody reads
    argv = [sys.executable, "-m", "device_runner", "run", str(config)]
    child = subprocess.Popen(argv, stdout=out, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: scrape().get("frames_processed_total", 0) > 50, 60)
        time.sleep(2.0)  # until every queue is full and every deadline has passed once
        before = scrape()
        time.sleep(seconds)
        after = scrape()
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()
        camera.close()
    passed = {name: after[name] - before[name] for name in COUNTED}
    return {
        "fps": round(passed["frames_processed_total"] / passed["up_seconds"], 2),
        "fired": passed["rules_fired_total"],
        "waiting": after["alerts_waiting"],
    }


def configuration(bundle: Path, folder: Path, url: str, labels: tuple[str, ...], parts: str, address: str) -> str:
    """A rule for every label, so that most pictures fire one."""
    action = f'[[action]]\nname = "tell"\ndelivery = "alert"\n{address}\n' if address else ""
    rules = [
        f'[[rule]]\nname = "r{i}"\nlabel = {json.dumps(label)}\nmin_confidence = 0.2\n'
        + ('action = "tell"\n' if address else "")
        for i, label in enumerate(labels)
    ]
    head = f'bundle = "{bundle}"\nstate = "{folder}/state"\ndry_run = false\n[source]\nurl = "{url}"\n'
    return "\n".join([head, f"[http]\nport = {PORT}\n", parts, *rules, action])


@contextmanager
def nobody(folder: Path) -> Iterator[tuple[str, str]]:
    """Events are recorded only."""
    yield "", ""


@contextmanager
def web_server(folder: Path) -> Iterator[tuple[str, str]]:
    """The system accepts connections for it; it answers none."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield "", f'webhook = "http://127.0.0.1:{server.getsockname()[1]}/"'


@contextmanager
def program(folder: Path) -> Iterator[tuple[str, str]]:
    """It ignores SIGTERM and starts another."""
    path = folder / "stubborn"
    path.write_text("#!/bin/sh\ntrap '' TERM\nsleep 60 &\nsleep 60\n")
    path.chmod(0o755)
    yield "", f'exec = ["{path}"]'


@contextmanager
def stopped_broker(folder: Path) -> Iterator[tuple[str, str]]:
    """A real mosquitto: the system still accepts for it."""
    broker = Broker(folder)
    broker.signal(signal.SIGSTOP)
    try:
        yield f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n', 'mqtt = "seen"'
    finally:
        broker.signal(signal.SIGCONT)
        broker.kill()


COUNTED = ("up_seconds", "frames_processed_total", "rules_fired_total")  # of one look at the runner, once a second
SINKS: Mapping[str, Sink] = {
    "none": nobody,
    "web server": web_server,
    "program": program,
    "broker": stopped_broker,
    "lines": nobody,
}
