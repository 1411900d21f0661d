"""Whole runs while something around them breaks, and what hostile files and labels can do: nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from broker import Broker, needs_mosquitto, wait_until
from camera import Camera
from PIL import Image
from runner_bundles import photo

from benchmarks.field import bundles as mutants
from benchmarks.field.soak import theil_sen
from device_runner import programs
from device_runner.bundle import open_bundle
from device_runner.config.parts import Mqtt
from device_runner.frames import Frame
from device_runner.mqtt import Client
from device_runner.worker.model import Model

RUN = [sys.executable, "-m", "device_runner", "run"]


@pytest.fixture
def camera() -> Iterator[Camera]:
    camera = Camera([photo(i) for i in range(4)])
    yield camera
    camera.close()


def write_config(folder: Path, bundle: Path, url: str, extra: str = "") -> tuple[Path, int]:
    """A configuration that watches `url`, and the port of its metrics."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    label = Model.load(open_bundle(bundle)).bundle.manifest.labels[0]
    config = folder / "c.toml"
    config.write_text(
        f'bundle = "{bundle}"\n{extra}\n[source]\nurl = "{url}"\nstall_s = 1\n[http]\nport = {port}\n'
        f'[[rule]]\nname = "r"\nlabel = "{label}"\nmin_confidence = 0.01\n'
    )
    return config, port


def metric(port: int, name: str) -> float:
    """One of the runner's numbers; -1 until it serves them."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as page:
            found = re.search(rf"^device_runner_{name} (\S+)$", page.read().decode(), re.MULTILINE)
    except OSError:
        return -1
    return float(found[1]) if found else -1


def end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=10)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_no_mutated_bundle_is_loaded(tmp_path: Path, bundle_path: Path):
    """benchmarks.runner does 4,000 on the demo's bundle."""
    measured = mutants.measure(bundle_path, 0.03, tmp_path)
    assert measured.failure is None and measured.result["mutants"] == 120
    assert measured.result["outcomes"]["BundleError"] > 50


def test_the_measure_of_mutants_notices_one_that_is_loaded(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("device_runner.bundle._check_files", lambda listed, files: None)
    assert "were loaded" in str(mutants.measure(bundle_path, 0.02, tmp_path).failure)


def png(width: int, height: int) -> bytes:
    """A PNG of any size in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    body = zlib.compress(bytes(min(width * height * 3 + height, 1 << 20)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def as_format(name: str) -> bytes:
    out = BytesIO()
    Image.new("RGB", (20, 20)).save(out, name)
    return out.getvalue()


BOMBS = {
    "png-177mp": png(13300, 13300),
    "png-wide": png(1 << 30, 1),
    "png-empty": png(0, 10),
    "jpeg-huge": photo(0).replace(b"\xff\xc0\x00\x11\x08\x00\x29\x00\x35", b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff"),
    "gif": as_format("GIF"),
    "tiff": as_format("TIFF"),
    "webp": as_format("WEBP"),
    "ppm": as_format("PPM"),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1e9" height="1e9"/>',
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "cut": photo(1)[:300],
    "none": b"",
}


def test_image_bombs_are_refused_counted_and_the_run_goes_on(tmp_path: Path, bundle_path: Path):
    shots = tmp_path / "shots"
    shots.mkdir()
    for i, (name, data) in enumerate(BOMBS.items()):
        (shots / f"{i:02}-{name}.png").write_bytes(data)
    (shots / "zz.jpg").write_bytes(photo(2))
    config, _ = write_config(tmp_path, bundle_path, str(shots))
    config.write_text(config.read_text().replace("[http]\n", "[http]\nhost = '127.0.0.1'\n"))
    done = subprocess.run([*RUN, str(config)], capture_output=True, timeout=60, check=False)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r.get("inert") for r in records] == ["refused"] * len(BOMBS) + [None], done.stderr
    assert done.returncode == 1 and b"Traceback" not in done.stderr


def test_every_line_has_the_same_form(tmp_path: Path, bundle_path: Path, camera: Camera):
    config, port = write_config(tmp_path, bundle_path, camera.url)
    with (tmp_path / "lines").open("wb") as lines:
        child = subprocess.Popen([*RUN, str(config)], stdout=lines, stderr=subprocess.PIPE)
        wait_until(lambda: metric(port, "frames_processed_total") > 20)
        end(child)
    text = (tmp_path / "lines").read_bytes()
    assert text.endswith(b"\n") and b"s3cret" not in text
    for i, line in enumerate(text.splitlines(), 1):
        record = json.loads(line)
        assert (record["schema"], record["seq"]) == (1, i)
        assert {"frame", "captured_ns", "age_ms"} <= record.keys()
        assert {"label", "index", "confidence", "review", "prepare_ms", "model_ms"} <= record.keys()
        assert record.get("inert") in (None, "same")


def test_nobody_reads_the_lines_and_the_camera_is_still_watched(tmp_path: Path, bundle_path: Path, camera: Camera):
    config, port = write_config(tmp_path, bundle_path, camera.url)
    reader, writer = os.pipe()
    os.write(writer, b"x" * 60_000)  # the pipe is all but full
    child = subprocess.Popen([*RUN, str(config)], stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    wait_until(lambda: metric(port, "frames_processed_total") > 5)
    before = metric(port, "frames_processed_total")
    wait_until(lambda: metric(port, "frames_processed_total") > before + 40)
    end(child)
    os.close(reader)


def test_neither_password_nor_pixels_leave_the_device(tmp_path: Path, bundle_path: Path, camera: Camera):
    state = tmp_path / "state"
    config, port = write_config(tmp_path, bundle_path, camera.url, f'state = "{state}"\naudit_every = true')
    child = subprocess.Popen([*RUN, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(lambda: metric(port, "frames_processed_total") > 5)
    camera.fault = "close"
    wait_until(lambda: metric(port, "source_stalls_total") > 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        served = page.read()
    child.send_signal(signal.SIGTERM)
    err = child.communicate(timeout=10)[1]
    kept = b"".join(p.read_bytes() for p in state.rglob("*") if p.is_file())
    assert len(kept) > 1000 and b"\xff\xd8\xff" not in kept
    for text in (served, err, kept):
        assert b"s3cret" not in text


def test_a_state_that_cannot_be_written_is_told_and_frames_are_still_answered(
    tmp_path: Path, bundle_path: Path, camera: Camera
):
    config, port = write_config(tmp_path, bundle_path, camera.url, 'state = "/proc/none"\naudit_every = true')
    child = subprocess.Popen([*RUN, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: metric(port, "disk_failures_total") > 5)
    before = metric(port, "frames_processed_total")
    wait_until(lambda: metric(port, "frames_processed_total") > before)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as page:
        assert "disk" in json.load(page)["degraded"]
    end(child)
    assert child.returncode == 0


@needs_mosquitto
def test_it_starts_before_its_camera_and_its_broker_and_is_ready_when_they_are(tmp_path: Path, bundle_path: Path):
    """A shop after a power cut: everything comes up in any order."""
    broker = Broker(tmp_path)
    broker.kill()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    config, port = write_config(tmp_path, bundle_path, f"http://127.0.0.1:{address[1]}/")
    config.write_text(f'{config.read_text()}[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n')
    child = subprocess.Popen([*RUN, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    camera: Camera | None = None
    try:
        wait_until(lambda: set(degraded(port)) == {"source", "mqtt"})
        camera = Camera([photo(i) for i in range(4)], address)
        broker.start()
        wait_until(lambda: degraded(port) == [], 35)
    finally:
        end(child)
        broker.kill()
        if camera:
            camera.close()


def degraded(port: int) -> list[str]:
    """What the runner says is not well; "not there" before it says anything."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as page:
            found: list[str] = json.load(page)["degraded"]
    except (OSError, KeyError):
        return ["not there"]
    return found


def test_a_quiet_run_leaves_the_disk_alone(tmp_path: Path, bundle_path: Path):
    """Sixty frames on which nothing fires: the first verdict is recorded, and that is all."""
    shots, state = tmp_path / "shots", tmp_path / "state"
    shots.mkdir()
    for i in range(60):
        (shots / f"{i:02}.jpg").write_bytes(photo(0))
    config, _ = write_config(tmp_path, bundle_path, str(shots), f'state = "{state}"')
    config.write_text(config.read_text().replace("min_confidence = 0.01", "min_confidence = 1.0"))
    done = subprocess.run([*RUN, str(config)], capture_output=True, timeout=60, check=True)
    assert done.stdout.count(b"\n") == 60
    files = [path for path in state.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["audit.jsonl"] and files[0].read_bytes().count(b"\n") == 1


HANG = """
import sys, time
from device_runner import cli
from device_runner.worker.model import Model
seen, see = [], Model.see
def hang(self, frame):
    seen.append(1)
    if len(seen) > 3:
        time.sleep(60)
    return see(self, frame)
Model.see = hang
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("program", "pings_go_on"), [(["-m", "device_runner"], True), (["-c", HANG], False)])
def test_the_watchdog_hears_of_a_model_that_hangs_and_of_nothing_else(
    program: list[str], pings_go_on: bool, tmp_path: Path, bundle_path: Path, camera: Camera
):
    config, _ = write_config(tmp_path, bundle_path, camera.url, 'isolation = "inline"')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        argv = [sys.executable, *program, "run", str(config)]
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        systemd.settimeout(10)
        assert systemd.recv(99) == b"READY=1"
        assert systemd.recv(99) == b"WATCHDOG=1"
        if pings_go_on:
            camera.fault = "silent"  # a camera that is lost is no reason to be restarted
        time.sleep(1.2)
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                systemd.recv(99)
        systemd.setblocking(True)
        systemd.settimeout(1.5)
        try:
            heard = systemd.recv(99) == b"WATCHDOG=1"
        except TimeoutError:
            heard = False
        assert heard is pings_go_on
        child.kill()
        child.communicate()


def test_reloads_and_stops_leave_no_process(tmp_path: Path, bundle_path: Path, camera: Camera):
    config, port = write_config(tmp_path, bundle_path, camera.url)
    child = subprocess.Popen([*RUN, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: metric(port, "frames_processed_total") > 0)
    for _ in range(2):
        child.send_signal(signal.SIGHUP)
        wait_until(lambda: metric(port, "frames_processed_total") < 1)
        wait_until(lambda: metric(port, "frames_processed_total") > 0)
    tasks = Path(f"/proc/{child.pid}/task").iterdir()
    pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
    assert len(pids) == 2
    start = time.monotonic()
    end(child)
    assert time.monotonic() - start < 5
    assert child.returncode == 0 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed: apt install faketime")
def test_a_wall_clock_that_jumps_restarts_nothing_and_ends_no_cooldown(
    tmp_path: Path, bundle_path: Path, camera: Camera
):
    """A board without a clock of its own starts in the past, and the network sets it."""
    first = Model.load(open_bundle(bundle_path)).see(
        Frame(captured_ns=0, name="", kind="file", size=(0, 0), data=photo(0))
    )
    state, shift = tmp_path / "state", tmp_path / "shift"
    config, port = write_config(tmp_path, bundle_path, camera.url, f'state = "{state}"\naudit_every = true')
    best = max(first.confidences)
    label = open_bundle(bundle_path).manifest.labels[first.confidences.index(best)]
    rules, _, _ = config.read_text().partition("[[rule]]")
    rules = rules.replace("stall_s = 1", "stall_s = 30")
    config.write_text(
        f'{rules}[[rule]]\nname = "r"\nlabel = "{label}"\nmin_confidence = {best * 0.999}\ncooldown_s = 3600\n'
        "max_age_ms = 60000\n"
    )
    shift.write_text("+0")
    environment = {**os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(shift)}
    environment |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    child = subprocess.Popen([*RUN, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        for jump in ("+400d", "-55y", "-1d", "+30s"):  # -55y: before 1980, as of a board without a clock
            seen = metric(port, "frames_processed_total")
            wait_until(lambda n=seen: metric(port, "frames_processed_total") > max(n, 0) + 8, 60)
            shift.write_text(jump)
        seen = metric(port, "frames_processed_total")
        wait_until(lambda: metric(port, "frames_processed_total") > seen + 8, 60)
        assert metric(port, "rules_fired_total") == 1
        assert metric(port, "model_restarts_total") == 0 and metric(port, "source_stalls_total") == 0
    finally:
        end(child)
    records = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    assert {record["verdict"] for record in records} >= {"fired", "cooldown"}
    assert [record["seq"] for record in records] == sorted(record["seq"] for record in records)
    walls = [record["wall"] for record in records]
    assert max(walls) - min(walls) > 400 * 86400 and min(walls) < 315_532_800  # seconds to 1980


def test_a_program_that_ignores_sigterm_and_starts_another_is_ended_with_it(tmp_path: Path):
    program = tmp_path / "stubborn"
    program.write_text(f"#!/bin/sh\ntrap '' TERM\nsleep 60 &\necho $! > {tmp_path}/pid\nsleep 60\n")
    program.chmod(0o755)
    start = time.monotonic()
    assert programs.run([str(program)], 0.5) is False
    assert time.monotonic() - start < 3
    pid = (tmp_path / "pid").read_text().strip()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split())
    assert programs.run(["/bin/true"], 5) and not programs.run(["/bin/false"], 5) and not programs.run(["/none"], 5)


def test_a_program_sees_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "s3cret")
    program = tmp_path / "tell"
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/env\nls /proc/self/fd | wc -l >> {tmp_path}/env\n")
    program.chmod(0o755)
    assert programs.run([str(program)], 5)
    assert "s3cret" not in (tmp_path / "env").read_text()


def test_the_motion_gate_spares_a_still_scene_and_misses_no_event(bundle_path: Path):
    """Sensor noise of one grey level on a still scene; 20 small things that appear."""
    rng, model = np.random.default_rng(5), Model.load(open_bundle(bundle_path), motion=12)
    scene = np.asarray(Image.open(BytesIO(photo(7, 160, 120))).convert("RGB"), float)
    asked = noticed = 0
    for i in range(400):
        pixels = scene + rng.normal(0, 1, scene.shape)
        if i % 20 == 10:
            y, x = rng.integers(20, 80), rng.integers(30, 110)
            pixels[y : y + 24, x : x + 24] = 255 - pixels[y : y + 24, x : x + 24].mean()
        data = np.clip(pixels, 0, 255).astype(np.uint8).tobytes()
        seen = model.see(Frame(captured_ns=0, name="", kind="rgb", size=(160, 120), data=data))
        asked += bool(seen.confidences)
        noticed += bool(seen.confidences) and i % 20 == 10
    assert noticed == 20 and asked <= 80


def test_the_slope_of_the_soak_is_that_of_its_samples():
    rng = np.random.default_rng(6)
    noisy = [(n, 20_000_000 + 40 * n + int(rng.normal(0, 4096))) for n in range(0, 60_000, 200)]
    flat = [(n, 20_000_000 + int(rng.normal(0, 4096))) for n in range(0, 200_000, 500)]
    assert theil_sen(noisy) == pytest.approx(40, rel=0.02) and abs(theil_sen(flat)) < 0.1


@needs_mosquitto
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_mqtt_over_tls_and_not_with_a_strangers_certificate(tmp_path: Path):
    for name in ("broker", "stranger"):
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.crt")]
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
        subprocess.run(argv, check=True, capture_output=True)
    for file in (tmp_path, *tmp_path.iterdir()):
        file.chmod(0o755)  # mosquitto gives up its rights before it reads them
    tls = f"certfile {tmp_path}/broker.crt\nkeyfile {tmp_path}/broker.key\nallow_anonymous true\n"
    broker = Broker(tmp_path, tls)
    clients = [
        Client(
            Mqtt(host="localhost", port=broker.port, tls=True, ca_file=str(tmp_path / f"{name}.crt")),
            name,
            ("gone", b"1"),
            retry_first_s=0.05,
        )
        for name in ("broker", "stranger")
    ]
    for client in clients:
        client.start()
    wait_until(lambda: clients[0].state == "online" and clients[1].reason == "SSLCertVerificationError")
    assert clients[0].publish("t", b"x" * 100_000, 1, 2) and not clients[1].publish("t", b"x", 1, 0.1)
    for client in clients:
        client.close()
    broker.kill()
