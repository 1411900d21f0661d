"""Sources that stall, lie, end and come back: the newest frame or none, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from camera import Camera
from runner_bundles import photo

from device_runner.config.parts import Source
from device_runner.frames import Frame
from device_runner.sources import supervisor
from device_runner.sources.supervisor import Supervisor

IMAGES = [photo(i) for i in range(4)]
FAULTS = ("reset", "close", "silent", "half image", "drip", "garbage")
STALL_S = 0.6

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed: apt install ffmpeg")


@pytest.fixture
def camera() -> Iterator[Camera]:
    camera = Camera(IMAGES)
    yield camera
    camera.close()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_RETRY_S", 0.2)
    monkeypatch.setattr(supervisor, "CONNECT_S", 5.0)


def wait_for(source: Supervisor, holds: Callable[[], bool], within_s: float = 60.0) -> list[Frame]:
    """Drive the source until something holds; the frames that came meanwhile."""
    frames, deadline = [], time.monotonic() + within_s
    while time.monotonic() < deadline:
        frame = source.next(0.02)
        if frame is not None:
            frames.append(frame)
        if holds():
            return frames
    raise AssertionError(f"{source.state} after {within_s} s: {source.problem}")


def inventory() -> tuple[int, int]:
    """Descriptors and threads."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def children() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lost_camera_stalls_gives_no_frame_and_comes_back(fault: str, camera: Camera):
    source = Supervisor(Source(url=camera.url, stall_s=STALL_S, retry_max_s=0.5))
    try:
        wait_for(source, lambda: source.state == "live" and source.counts.delivered > 3)
        camera.fault = fault
        wait_for(source, lambda: source.state == "stalled")
        assert wait_for_nothing(source, 0.5) == 0
        camera.fault = None
        assert wait_for(source, lambda: source.counts.delivered > 5 and source.state == "live")[-1].data in IMAGES
    finally:
        source.close()
    c = source.counts
    assert c.received == c.delivered + c.dropped and c.stalls >= 1


def wait_for_nothing(source: Supervisor, for_s: float) -> int:
    """Frames that come although the camera is lost."""
    end, count = time.monotonic() + for_s, 0
    while time.monotonic() < end:
        count += source.next(0.05) is not None
    return count


@pytest.mark.parametrize("fault", ["404", "redirect", "deaf"])
def test_a_camera_that_is_not_there_yet_is_waited_for(fault: str, camera: Camera):
    camera.fault, camera.login = fault, b"WWW-Authenticate: Basic realm=x"
    source = Supervisor(Source(url=camera.url, stall_s=STALL_S, retry_max_s=0.5))
    try:
        wait_for(source, lambda: source.state == "stalled")
        assert source.counts.received == 0 and source.problem is not None
        assert "s3cret" not in f"{source.problem} {source.place}"
        camera.fault = None
        wait_for(source, lambda: source.state == "live")
    finally:
        source.close()
    assert b"Authorization: Basic am9lOnMzY3JldA==" in camera.requests[-1]  # joe:s3cret


def test_a_camera_that_takes_a_digest_never_hears_the_password(camera: Camera):
    """The answer is that of RFC 2617: MD5(MD5(user:realm:password):nonce:nc:cnonce:qop:MD5(GET:path))."""
    camera.login = (
        b'WWW-Authenticate: Basic realm="cam"\r\n'
        b'WWW-Authenticate: Digest realm="cam, front", nonce="abc123", qop="auth", algorithm=MD5'
    )
    source = Supervisor(Source(url=camera.url))
    try:
        wait_for(source, lambda: source.state == "live")
    finally:
        source.close()
    assert b"Authorization" not in camera.requests[0]
    (line,) = [x for x in camera.requests[1].decode().splitlines() if x.startswith("Authorization: Digest ")]
    said = dict(re.findall(r'(\w+)="?([^",]+)', line))
    md5 = lambda text: hashlib.md5(text.encode()).hexdigest()  # noqa: E731
    secret = md5("joe:cam, front:s3cret")
    assert said["response"] == md5(f"{secret}:abc123:{said['nc']}:{said['cnonce']}:auth:{md5('GET:/mjpg')}")
    assert b"s3cret" not in b"".join(camera.requests) and b"Basic" not in b"".join(camera.requests)


def test_a_login_that_nobody_knows_is_told(camera: Camera):
    camera.login = b"WWW-Authenticate: Digest realm=x, nonce=y, algorithm=SHA-512-256"
    source = Supervisor(Source(url=camera.url, retry_max_s=0.5))
    try:
        wait_for(source, lambda: source.state == "stalled")
        assert source.problem is not None and "asks for an unknown login" in source.problem.what
    finally:
        source.close()


@needs_ffmpeg
def test_a_usb_camera_that_is_not_there_is_waited_for():
    source = Supervisor(Source(url="/dev/video99", retry_max_s=0.5))
    try:
        wait_for(source, lambda: source.state == "stalled")
        assert source.problem is not None and source.problem.what == "ffmpeg cannot read the source"
        wait_for(source, lambda: source.counts.stalls > 1)
        assert source.counts.received == 0
    finally:
        source.close()


def test_twenty_losses_leave_nothing_behind(camera: Camera):
    before = inventory(), children()
    source = Supervisor(Source(url=camera.url, stall_s=STALL_S, retry_max_s=0.1))
    for _ in range(5):
        wait_for(source, lambda: source.state == "live")
        camera.fault = "close"
        wait_for(source, lambda: source.state == "stalled")
        camera.fault = None
    source.close()
    camera.fault = "close"
    time.sleep(0.1)
    assert children() == before[1]
    assert inventory()[0] <= before[0][0] and inventory()[1] <= before[0][1] + 1  # the camera's last thread


def test_only_the_newest_frame_of_a_live_source_is_kept(camera: Camera):
    source = Supervisor(Source(url=camera.url))
    try:
        wait_for(source, lambda: source.state == "live")
        time.sleep(0.5)
        frame = source.next(1)
        age_ms = (time.monotonic_ns() - frame.captured_ns) / 1e6 if frame else 0
        assert frame is not None and age_ms < 200
        assert source.counts.dropped > 5
    finally:
        source.close()


def test_every_file_is_delivered_in_order_however_slow_the_reader(tmp_path: Path):
    for i in range(30):
        (tmp_path / f"{i:02}.jpg").write_bytes(IMAGES[i % 4])
    (tmp_path / "notes.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe.jpg")
    source = Supervisor(Source(url=str(tmp_path)))
    frames = []
    while (frame := source.next(60)) is not None:
        frames.append(frame)
        time.sleep(0.005)
    assert [Path(f.name).name for f in frames] == [f"{i:02}.jpg" for i in range(30)]
    assert [f.data for f in frames] == [IMAGES[i % 4] for i in range(30)]
    assert (source.state, source.counts.dropped, source.problem) == ("eof", 0, None)


def test_at_most_so_many_frames_a_second(camera: Camera):
    source = Supervisor(Source(url=camera.url, fps=10))
    try:
        wait_for(source, lambda: source.state == "live")
        before = source.counts.delivered
        wait_for_nothing(source, 1.0)
        assert 7 <= source.counts.delivered - before <= 12
    finally:
        source.close()


@pytest.mark.parametrize(
    ("url", "size", "stdin", "expected"),
    [
        ("-", None, b"".join(IMAGES), IMAGES[-1:]),
        ("raw:-", (2, 1), b"abcdefghijkl" + b"mno", [b"ghijkl"]),
    ],
)
def test_standard_input(url: str, size: tuple[int, int] | None, stdin: bytes, expected: list[bytes]):
    """In a process of its own, whose stdin we are free to set."""
    code = (
        "import sys; from device_runner.sources.supervisor import Supervisor\n"
        "from device_runner.config.parts import Source\n"
        f"s = Supervisor(Source(url={url!r}, size={size!r}))\n"
        "import time; seen = []\n"
        "while s.state != 'eof':\n"
        "    f = s.next(0.2)\n"
        "    seen += [f.data] if f else []\n"
        "sys.stdout.buffer.write(seen[-1]); print(s.problem, file=sys.stderr)\n"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], input=stdin, capture_output=True, timeout=120, check=True)
    assert done.stdout == expected[-1] and done.stderr.strip().endswith(b"None")


@needs_ffmpeg
def test_every_frame_of_a_video(tmp_path: Path):
    film = make_film(tmp_path / "film.mp4", "testsrc=size=64x48:rate=10:duration=2")
    source = Supervisor(Source(url=str(film)))
    frames = []
    while (frame := source.next(60)) is not None:
        frames.append(frame)
    assert len(frames) == 20 and {f.size for f in frames} == {(64, 48)} and source.problem is None
    assert len({f.data for f in frames}) > 5


@needs_ffmpeg
def test_a_picture_that_changes_its_size_is_not_distorted(tmp_path: Path):
    """ffmpeg would stretch what follows to the size of the first frame, with another ratio of its sides."""
    parts = [
        make_film(tmp_path / f"{size}.ts", f"testsrc=size={size}:rate=10:duration=9") for size in ("64x48", "48x64")
    ]
    film = tmp_path / "both.ts"
    film.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = Supervisor(Source(url=str(film)))
    frames = 0
    while source.next(60) is not None:
        frames += 1
    assert source.problem is not None and source.problem.what == "the picture changed its size"
    assert 80 <= frames <= 95


@needs_ffmpeg
def test_a_playlist_that_calls_itself_a_video_opens_no_other_file(tmp_path: Path):
    inner = make_film(tmp_path / "inner.ts", "testsrc=size=64x48:rate=10:duration=1")
    playlist = tmp_path / "film.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{inner}\n#EXT-X-ENDLIST\n")
    for text in (playlist.read_text(), f"ffconcat version 1.0\nfile {inner}\n"):
        playlist.write_text(text)
        source = Supervisor(Source(url=str(playlist)))
        assert source.next(60) is None and source.state == "eof"
        assert source.problem is not None and "ffmpeg cannot read" in source.problem.what


def make_film(path: Path, pattern: str) -> Path:
    argv = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", pattern, "-y", str(path)]
    subprocess.run(argv, check=True, timeout=30)
    return path


def test_what_ffmpeg_prints_passes_without_the_password(capsys: pytest.CaptureFixture[str]):
    from io import BytesIO

    from device_runner.sources.ffmpeg import _retell
    from device_runner.sources.grammar import secrets

    url = "rtsp://joe:s3%24cret@cam/live"
    lines = b"[rtsp @ 0x1] [error] cannot open rtsp://joe:s3%24cret@cam/live\n[error] login s3$cret \x1b[2J refused\n"
    graph = b"[graph 0 input from stream 0:0 @ 0x1] [verbose] w:96 h:64 pixfmt:yuv420p\n"
    sizes: set[tuple[bytes, bytes]] = set()
    _retell(BytesIO(lines + graph + b"[fatal] more\n" * 100), secrets(url), sizes)
    err = capsys.readouterr().err
    assert sizes == {(b"96", b"64")} and "graph" not in err
    assert "cret" not in err and "\x1b" not in err and "cannot open rtsp://" in err and err.count("\n") == 20
