"""Every way to lose a camera: how soon is it noticed, does a frame come meanwhile, and how soon is it found again?

All faults run side by side, each with a camera and a supervisor of its own, with the default times: stalled after 5 s,
a pause of at most 30 s before another try. A frame counts as invented if it is stamped later than half a second after
the camera went silent, which what was under way has arrived by then, and before the camera is back.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from camera import Camera
from test_runner_rtsp import Camera as RtspCamera
from test_runner_rtsp import free_port, has_gstreamer

from benchmarks.field.costs import make_images
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.config.parts import Source
from device_runner.sources.supervisor import Supervisor

LOSSES = 3  # of every camera
DOWN_S = 8.0
GRACE_S = 0.5
STALLED_S, LIVE_S = 5.0 + 0.5, 30.0 + 2.0  # half a second for the turn of the loop and a busy machine
HTTP_FAULTS = ("reset", "close", "silent", "half image", "drip", "garbage", "404", "redirect", "deaf")
TESTS = Path(__file__).parents[2] / "tests" / "device_runner"
SPACE, OURS, THEIRS = "runner-camera", "10.213.7.1", "10.213.7.2"


@dataclass(frozen=True)
class Fault:
    """A camera that can be lost."""

    url: str
    lose: Callable[[], object]
    restore: Callable[[], object]
    close: Callable[[], object]


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """All faults at once; those whose parts are not installed are named."""
    losses = max(round(LOSSES * scale), 1)
    found: dict[str, Any] = {}
    threads = [
        threading.Thread(target=lambda n=name, m=make: found.update({n: lose_and_find(m(), losses)}))
        for name, (make, missing) in FAULTS.items()
        if missing() is None
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    unrun = {name: reason for name, (_, missing) in FAULTS.items() if (reason := missing()) is not None}
    broken = [f"{name}: {text}" for name in FAULTS if name not in unrun for text in complaints(found.get(name))]
    result = {"losses": losses, "faults": {n: found[n] for n in FAULTS if n in found}, "unrun": unrun}
    failure = Failure(what="a source broke its promise", why="; ".join(broken), fix="mend it")
    return Measured(result, failure if broken else None, notes=(json.dumps(result),))


def complaints(row: dict[str, Any] | None) -> list[str]:
    """What a fault shows that must not be."""
    if row is None:
        return ["it could not be measured"]
    late = max(row["stalled_s"]) > STALLED_S, max(row["live_s"]) > LIVE_S
    texts = ("noticed too late", "found again too late", f"{row['invented']} frames while it was down")
    return [text for text, holds in zip(texts, (*late, row["invented"] > 0), strict=True) if holds]


def lose_and_find(fault: Fault, losses: int) -> dict[str, Any]:
    """Seconds to `stalled` and to `live` of every loss, and the frames that came in between."""
    source, stalled, live, invented = Supervisor(Source(url=fault.url)), [], [], 0
    try:
        follow(source, lambda: source.state == "live", 60)
        for _ in range(losses):
            follow(source, lambda: False, 0.5)
            stalls, start = source.counts.stalls, time.monotonic()
            fault.lose()
            frames = follow(source, lambda n=stalls: source.counts.stalls > n, 30)  # type: ignore[misc]
            stalled.append(round(time.monotonic() - start, 2))
            frames += follow(source, lambda: False, DOWN_S)
            invented += sum(stamp > start + GRACE_S for stamp in frames)
            start = time.monotonic()
            fault.restore()
            follow(source, lambda: source.state == "live", 60)
            live.append(round(time.monotonic() - start, 2))
    finally:
        source.close()
        fault.close()
    return {"stalled_s": stalled, "live_s": live, "invented": invented}


def follow(source: Supervisor, holds: Callable[[], bool], within_s: float) -> list[float]:
    """Take frames until something holds, or the time is over; when each was stamped, in seconds."""
    stamps, deadline = [], time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        frame = source.next(0.05)
        if frame is not None:
            stamps.append(frame.captured_ns / 1e9)
    return stamps


def http_fault(name: str) -> Fault:
    """A camera that misbehaves by itself; what it does at the start of a connection needs the old one to end."""
    camera = Camera(make_images())

    def lose() -> None:
        camera.fault = name

    def restore() -> None:
        camera.fault = None

    return Fault(camera.url, lose, restore, camera.close)


def http_process(number: int) -> Fault:
    """A camera whose process is stopped, or killed."""
    port = free_port()
    return process_fault(number, f"http://127.0.0.1:{port}/", camera_argv("127.0.0.1", port), port)


def camera_argv(host: str, port: int) -> list[str]:
    """The command of a camera in a process of its own."""
    return [sys.executable, str(TESTS / "camera_process.py"), host, str(port)]


def process_fault(number: int, url: str, argv: list[str], port: int) -> Fault:
    """Any server that is a process."""
    children = [launch(argv)]
    wait_for(port)

    def restore() -> None:
        if number == signal.SIGSTOP:
            children[-1].send_signal(signal.SIGCONT)
        else:
            children[-1].wait()
            children.append(launch(argv))

    def end() -> None:
        children[-1].kill()
        children[-1].wait()

    return Fault(url, lambda: children[-1].send_signal(number), restore, end)


def launch(argv: list[str]) -> subprocess.Popen[bytes]:
    """Start a server, without a word."""
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(port: int, host: str = "127.0.0.1") -> None:
    """Until somebody listens."""
    for _ in range(200):
        try:
            socket.create_connection((host, port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nobody listens on {host}:{port}")


def rtsp(number: int) -> Fault:
    """GStreamer's server, over TCP."""
    camera = RtspCamera("tcp")
    camera.start()

    def restore() -> None:
        if number == signal.SIGSTOP:
            camera.send(signal.SIGCONT)
        else:
            camera.kill()
            camera.start()

    return Fault(camera.url, lambda: camera.send(number), restore, camera.kill)


def network() -> Fault:
    """A camera behind a cable that is pulled: nothing comes any more, not even the end of the connection."""
    ip("netns", "add", SPACE)
    ip("link", "add", "runner0", "type", "veth", "peer", "name", "runner1", "netns", SPACE)
    ip("addr", "add", f"{OURS}/24", "dev", "runner0")
    ip("link", "set", "runner0", "up")
    ip("-n", SPACE, "addr", "add", f"{THEIRS}/24", "dev", "runner1")
    ip("-n", SPACE, "link", "set", "runner1", "up")
    port = free_port()
    child = launch(["ip", "netns", "exec", SPACE, *camera_argv(THEIRS, port)])
    wait_for(port, THEIRS)

    def close() -> None:
        child.kill()
        child.wait()
        ip("link", "del", "runner0")
        ip("netns", "del", SPACE)

    return Fault(
        f"http://{THEIRS}:{port}/",
        lambda: ip("-n", SPACE, "link", "set", "runner1", "down"),
        lambda: ip("-n", SPACE, "link", "set", "runner1", "up"),
        close,
    )


def ip(*words: str) -> None:
    """One command of iproute2."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def nothing() -> None:
    """Nothing is missing."""


def no_rtsp() -> str | None:
    """Why there is no RTSP here."""
    if not has_gstreamer():
        return "needs gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-base and -good"
    return None if shutil.which("ffmpeg") else "needs ffmpeg"


def no_network() -> str | None:
    """Why there is no network of our own here."""
    return None if os.geteuid() == 0 and shutil.which("ip") else "needs root and iproute2"


FAULTS: dict[str, tuple[Callable[[], Fault], Callable[[], str | None]]] = {
    **{f"http, {name}": (partial(http_fault, name), nothing) for name in HTTP_FAULTS},
    "http, process stopped": (lambda: http_process(signal.SIGSTOP), nothing),
    "http, process killed": (lambda: http_process(signal.SIGKILL), nothing),
    "http, cable pulled": (network, no_network),
    "rtsp, process stopped": (lambda: rtsp(signal.SIGSTOP), no_rtsp),
    "rtsp, process killed": (lambda: rtsp(signal.SIGKILL), no_rtsp),
}
"""Name -> (a camera with this fault, why it cannot be had here)."""
