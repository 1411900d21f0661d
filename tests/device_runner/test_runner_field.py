"""What keeps a runner going for months: watchdog, health, heat, doubtful frames, drift, tamper, full disks."""

from __future__ import annotations

import csv
import errno
import io
import json
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from runner_bundles import photo
from test_runner_rules import make_record

from device_runner import audit, cli
from device_runner.audit import Audit
from device_runner.config.parts import Heat as HeatConfig
from device_runner.config.parts import Review as ReviewConfig
from device_runner.config.parts import Rule
from device_runner.drift import ALARM, Drift, psi
from device_runner.endpoint import Endpoint
from device_runner.frames import Frame
from device_runner.guard import Guard
from device_runner.heat import Heat
from device_runner.histogram import Histogram
from device_runner.log import Log
from device_runner.metrics import HELP, PREFIX, render
from device_runner.preprocess import decode
from device_runner.review import Review
from device_runner.rules import Memory, Score, Sight
from device_runner.systemd import Notifier
from device_runner.worker.messages import Look
from device_runner.worker.model import look_at
from shrink.data.table import read_csv

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
RULE = Rule(name="r", label="cat", min_confidence=0.5)


# --- watchdog


def test_systemd_hears_ready_and_four_pings_in_its_time(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(1)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"})
        notifier.send("READY=1")
        assert systemd.recv(99) == b"READY=1"
        end, pings = time.monotonic() + 0.45, 0
        while time.monotonic() < end:
            notifier.alive()
            time.sleep(0.001)
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            while systemd.recv(99) == b"WATCHDOG=1":
                pings += 1
        assert 3 <= pings <= 6


def test_without_systemd_nothing_is_sent():
    for environment in ({}, {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "x"}):
        notifier = Notifier(environment)
        notifier.send("READY=1")
        notifier.alive()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["device_runner", "device_runner-model"])
def test_the_units_are_hardened(name: str):
    unit = ROOT / "device_runner" / "deploy" / f"{name}.service"
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(tmp_path: Path):
    programs = {"/usr/lib/rauc/device-runner": "/bin/true", "/usr/local/bin/device_runner": "/bin/true"}
    for unit in (ROOT / "device_runner" / "deploy").glob("device_runner*.*"):
        text = unit.read_text(encoding="utf-8")
        for program, instead in programs.items():  # which are not installed here
            text = text.replace(program, instead)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    units = sorted(map(str, tmp_path.iterdir()))
    assert len(units) == 3
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not re.findall("Unknown|Failed to parse|ignoring", done.stderr), done.stderr


# --- metrics and health


def parse(text: str) -> dict[str, float]:
    """A strict reader of Prometheus text, written from its specification."""
    values: dict[str, float] = {}
    sample = re.compile(r'([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (\S+)')
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP \S+ .+|TYPE \S+ (gauge|counter|histogram))", line)
            continue
        found = sample.fullmatch(line)
        assert found, line
        name = found[1] + (found[2] or "")
        assert name not in values
        values[name] = float(found[3])
    return values


def test_metrics_are_valid_whatever_the_model_is_called():
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.add(value)
    page = render(dict.fromkeys(HELP, 1.0), {"sha256": 'a"b\\c\nd', "engine": "{x}"}, histogram)
    values = parse(page)
    assert all(values[f"{PREFIX}{name}"] == 1.0 for name in HELP)
    assert [values[f'{PREFIX}inference_seconds_bucket{{le="{le}"}}'] for le in ("0.1", "1", "+Inf")] == [2, 3, 4]
    assert values[f"{PREFIX}inference_seconds_sum"] == pytest.approx(7.65)


def test_what_is_not_known_is_left_out():
    assert "temperature" not in render({"temperature_celsius": None}, {}, Histogram())


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint("127.0.0.1", 0, {"/metrics": lambda: (200, "x 1\n"), "/readyz": lambda: (503, "no\n")})
    yield endpoint
    endpoint.close()


def ask(endpoint: Endpoint, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", endpoint.port), 5) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(4096), b""))


@pytest.mark.parametrize(
    ("request_line", "host", "status"),
    [
        ("GET /metrics HTTP/1.1", "127.0.0.1:9108", 200),
        ("GET /metrics?x=1 HTTP/1.0", "localhost", 200),
        ("GET /metrics HTTP/1.1", "[::1]:9108", 200),
        ("GET /readyz HTTP/1.1", "192.168.1.5", 503),
        ("GET /frame.jpg HTTP/1.1", "127.0.0.1", 404),
        ("POST /metrics HTTP/1.1", "127.0.0.1", 405),
        ("GET /metrics HTTP/1.1", "evil.example", 403),
        ("GET /metrics HTTP/1.1", "evil.example:9108", 403),
        ("nonsense", "127.0.0.1", 400),
        ("GET /metrics\xff HTTP/1.1", "127.0.0.1", 400),
    ],
)
def test_the_endpoint_answers(request_line: str, host: str, status: int, endpoint: Endpoint):
    answer = ask(endpoint, f"{request_line}\r\nHost: {host}\r\n\r\n".encode("latin-1"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


def test_slow_and_endless_clients_block_nobody(endpoint: Endpoint):
    threads = threading.active_count()
    slow = [socket.create_connection(("127.0.0.1", endpoint.port)) for _ in range(3)]
    for client in slow:
        client.sendall(b"GET /met")
    assert ask(endpoint, b"GET /metrics HTTP/1.1\r\n\r\n").endswith(b"x 1\n")
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", endpoint.port), 5) as endless:
        for _ in range(1000):
            endless.sendall(b"X-Header: " + b"a" * 60_000)
    for client in slow:
        client.close()
    assert threading.active_count() == threads


def test_a_thousand_scrapes_leak_nothing(endpoint: Endpoint):
    ask(endpoint, b"GET /metrics HTTP/1.1\r\n\r\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(1000):
        ask(endpoint, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# --- heat


def test_a_ramp_of_heat_gives_a_staircase_without_swinging(tmp_path: Path):
    zone = tmp_path / "class" / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    heat, seen = Heat(HeatConfig(limit_c=80, resume_c=72, sysfs=str(tmp_path))), []
    ramp = [*range(50, 86), *[85] * 30, *range(85, 49, -1), *[50] * 30]
    for second, celsius in enumerate(ramp):
        (zone / "temp").write_text(f"{celsius * 1000}\n")
        seen.append(heat.step(second * SECOND))
    stairs = [a for a, b in zip(seen, [0.0, *seen], strict=False) if a != b]
    assert stairs == [1.0, 2.0, 4.0, 8.0, 4.0, 2.0, 1.0]
    assert seen[ramp.index(80)] == 2.0 and heat.celsius == 50


def test_a_device_without_sensors_runs_at_full_rate_and_nonsense_is_no_heat(tmp_path: Path):
    heat = Heat(HeatConfig(sysfs=str(tmp_path)))
    assert heat.step(0) == 1.0 and heat.celsius is None and heat.undervoltage is None
    for i, text in enumerate(("999000", "nan", "-273000", "45000")):
        zone = tmp_path / "class" / "thermal" / f"thermal_zone{i}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(text)
    throttled = tmp_path / "devices" / "platform" / "soc" / "soc:firmware"
    throttled.mkdir(parents=True)
    (throttled / "get_throttled").write_text("50005\n")
    assert heat.step(0) == 1.0 and heat.celsius == 45 and heat.undervoltage is True


# --- doubtful frames


def frame(i: int) -> Frame:
    return Frame(captured_ns=0, name=f"{i}", kind="file", size=(0, 0), data=photo(i % 4) + bytes(i))


def test_the_quota_of_doubtful_frames_holds_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    review = Review(tmp_path / "r", ReviewConfig(max_bytes=20_000))
    sizes = []
    monkeypatch.setattr("device_runner.review.wall_s", lambda: sizes.append(folder_bytes(tmp_path)) or 0.0)
    for i in range(60):
        review.keep(frame(i), "../../ä/b", 0.4, "m")
        sizes.append(folder_bytes(tmp_path))
    review.close()
    assert max(sizes) <= 20_000 and sizes[-1] > 10_000
    kept = sorted((tmp_path / "r").iterdir())
    assert len(kept) % 2 == 0 and all(re.fullmatch(r"\d{8}-[a-z0-9-]+\.(jpg|json)", p.name) for p in kept)
    about = json.loads(kept[-1].with_suffix(".json").read_text())
    assert about["label"] == "../../ä/b" and about["frame"] == "59" and about["confidence"] == 0.4
    assert decode(kept[-1].with_suffix(".jpg").read_bytes()).size == (53, 41)


def folder_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def test_only_doubtful_frames_and_not_too_many_are_kept(tmp_path: Path):
    review = Review(tmp_path / "r", ReviewConfig(min_gap_s=60))
    review.offer(frame(0), "cat", 0.6, "m")
    for i in range(10):
        review.offer(frame(i), "cat", 0.59, "m")
    review.close()
    raw = Frame(captured_ns=0, name="", kind="rgb", size=(4, 3), data=bytes(range(36)))
    review.keep(raw, "cat", 0.1, "m")
    assert sorted(p.suffix for p in (tmp_path / "r").iterdir()) == [".jpg", ".json", ".json", ".png"]
    png = decode(next((tmp_path / "r").glob("*.png")).read_bytes())
    assert np.asarray(png).tobytes() == bytes(range(36))


def test_what_was_kept_becomes_a_csv_that_a_person_fills_in_and_the_toolkit_reads(tmp_path: Path, capsys):
    folder = tmp_path / "review"
    review = Review(folder, ReviewConfig())
    for i, label in enumerate(("cat", "=1+1", "a,b\n\x1b[2J", "dog")):
        review.keep(frame(i), label, 0.25 + i / 10, "m")
    review.close()
    sorted(folder.glob("*.json"))[3].write_bytes(b"{")
    assert cli.main(["review", str(folder)]) == 1
    text, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["label"], r["confidence"]) for r in rows] == [("", "0.2500"), ("", "0.3500"), ("", "0.4500")]
    assert rows[0]["guess"] == "cat" and rows[1]["guess"] == "'=1+1" and rows[2]["guess"].startswith("a,b")
    assert "\x1b" not in text and text.count("\n") == 4 and "00000004-dog" in err
    filled = folder / "labels.csv"
    with filled.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "label": "bird"} for row in rows)
    assert read_csv("labels", filled).evaluation.classes == ("bird",)
    assert cli.main(["review", str(tmp_path / "none")]) == 1 and "cannot be read" in capsys.readouterr().err


def test_a_file_that_is_in_the_way_is_left_alone(tmp_path: Path):
    review = Review(tmp_path / "r", ReviewConfig())
    review.close()
    (tmp_path / "r").mkdir()
    there = tmp_path / "r" / "00000001-cat.json"
    there.write_text("of somebody else")
    with pytest.raises(FileExistsError):
        review.keep(frame(0), "cat", 0.1, "m")
    assert there.read_text() == "of somebody else" and list((tmp_path / "r").iterdir()) == [there]


# --- drift


def test_psi_is_that_of_its_definition():
    assert psi([50, 50], [50, 50]) == 0
    expected = (0.8 - 0.5) * np.log(0.8 / 0.5) + (0.2 - 0.5) * np.log(0.2 / 0.5)
    assert psi([500, 500], [80, 20]) == pytest.approx(expected)


def test_drift_is_told_when_the_scene_changes_and_not_before():
    rng, drift = np.random.default_rng(1), Drift()
    for _ in range(50_000):
        drift.add(int(rng.choice(5, p=[0.5, 0.2, 0.1, 0.1, 0.1])), float(rng.beta(8, 2)))
        assert drift.psi is None or drift.psi < ALARM / 2
    for _ in range(4000):
        drift.add(int(rng.choice(5, p=[0.2, 0.5, 0.1, 0.1, 0.1])), float(rng.beta(4, 4)))
    assert drift.psi is not None and drift.psi > ALARM


# --- what a camera shows


def look(pixels: np.ndarray) -> Look:
    return look_at(np.clip(pixels, 0, 255).astype(np.uint8))


SCENE = np.random.default_rng(2).integers(0, 256, (48, 64, 3)).astype(float)


@pytest.mark.parametrize("level", [0, 16, 128, 255])
def test_a_black_white_or_covered_camera_decides_nothing_at_once_and_is_told_after_a_while(level: int):
    rng, guard = np.random.default_rng(3), Guard(10, 5, live=True)
    for tenth in range(100):
        even = look(level + rng.normal(0, 1, SCENE.shape))
        assert guard.judge(even, tenth * SECOND // 10) == "covered"
        assert (guard.tampered == "covered") == (tenth >= 50)
    assert guard.judge(look(SCENE), 11 * SECOND) is None and guard.tampered is None


def test_a_frozen_camera_is_told_after_ten_seconds():
    guard = Guard(10, 5, live=True)
    judged = [guard.judge(look(SCENE), second * SECOND) for second in range(13)]
    assert judged == [None, *["same"] * 9, *["frozen"] * 3] and guard.tampered == "frozen"
    guard.forget()
    assert guard.judge(look(SCENE), 14 * SECOND) is None


def test_a_still_scene_with_the_noise_of_a_sensor_is_neither():
    rng, guard = np.random.default_rng(4), Guard(10, 5, live=True)
    for second in range(3600):
        assert guard.judge(look(SCENE + rng.normal(0, 1, SCENE.shape)), second * SECOND) is None


def test_the_same_file_twice_is_looked_at_twice():
    guard = Guard(10, 5, live=False)
    assert [guard.judge(look(SCENE), i * 60 * SECOND) for i in range(5)] == [None] * 5


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 1), (15, 17, 3)])
def test_any_size_of_picture_can_be_looked_at(shape: tuple[int, int, int]):
    pixels = np.full(shape, 77, np.uint8)
    described = look_at(pixels)
    assert described.mean == 77 and described.spread == 0 and set(described.thumbnail) == {77}


# --- disks that fill up, and a log that stays short


def record(number: int) -> audit.Record:
    sight = Sight(captured_ns=0, now_ns=0, inert=None, scores={"cat": Score(0.9, 0.1)})
    return msgspec.structs.replace(make_record(RULE, Memory(), sight, "fired", Memory(held=True)), seq=number)


def test_the_audit_keeps_its_quota_and_the_newest_records(tmp_path: Path):
    log = Audit(tmp_path, 40_000)
    for i in range(500):
        assert log.write(record(i))
        assert folder_bytes(tmp_path) <= 40_000
    kept = [r.seq for path in sorted(tmp_path.iterdir(), reverse=True) for r in audit.read(path)]
    assert kept == list(range(500 - len(kept), 500)) and len(kept) > 30


def test_a_full_disk_leaves_no_half_record_and_recovers(tmp_path: Path):
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        log = Audit(mount, 1 << 20)
        written = [log.write(record(i)) for i in range(200)]
        assert written[0] and not written[-1] and log.failed == written.count(False)
        assert [r.seq for r in audit.read(mount / audit.NAME)] == list(range(written.count(True)))
        (mount / audit.NAME).unlink()
        assert log.write(record(200))
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_read_only_disk_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object) -> int:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("os.open", refuse)
    log = Audit(tmp_path, 40_000)
    assert not log.write(record(0)) and log.failed == 1


def test_a_record_that_power_cut_is_left_out(tmp_path: Path):
    log = Audit(tmp_path, 40_000)
    log.write(record(0))
    log.write(record(1))
    path = tmp_path / audit.NAME
    path.write_bytes(path.read_bytes()[:-20])
    assert [r.seq for r in audit.read(path)] == [0]


def test_a_quiet_camera_writes_nothing():
    log = Audit(None, 4096)
    due = [log.is_due("r", verdict) for verdict in ["confidence"] * 100 + ["votes", "fired", "fired", "held", "held"]]
    assert [d for d, _ in due] == [True, *[False] * 99, True, True, True, True, False]
    assert due[100] == (True, 99)


def test_a_line_that_repeats_is_written_once_a_minute():
    out, now = io.StringIO(), [0]
    log = Log(out, now_ns=lambda: now[0])
    for second in range(121):
        now[0] = second * SECOND
        log.say("the camera http://joe:s3cret@cam/ is away \x1b[2J")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3 and lines[1].endswith("(and 59 times more)")
    assert "s3cret" not in out.getvalue() and "\x1b" not in out.getvalue()


def test_a_log_of_ever_new_lines_stays_small():
    log, rng = Log(io.StringIO()), random.Random(1)
    for _ in range(1000):
        log.say(f"{rng.random()}")
    assert len(log._seen) <= 64
