"""RTSP with a real server and ffmpeg: the camera is there late, is lost, and comes back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import wait_until

from device_runner.config.parts import Source
from device_runner.sources import supervisor
from device_runner.sources.supervisor import Supervisor

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed: apt install ffmpeg")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


class Camera:
    """A server for clients over UDP, with an ffmpeg that feeds it a test picture; or one of GStreamer, over TCP."""

    def __init__(self, transport: str) -> None:
        self.transport, self.port, self._feed_port = transport, free_port(), free_port()
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"rtsp://joe:s3cret@127.0.0.1:{self.port}/cam"

    def start(self) -> None:
        if self.transport == "tcp":
            self._launch(["/usr/bin/python3", str(Path(__file__).with_name("gst_camera.py")), str(self.port)])
            wait_until(lambda: self._listens(self.port))
            return
        listen = ["--clientport", str(self.port), "--serverport", str(self._feed_port)]
        address = ["--client_listen_address", "127.0.0.1", "--source_listen_address", "127.0.0.1"]
        self._launch(["rtsp-server-perl", *listen, *address])
        wait_until(lambda: self._listens(self._feed_port))
        picture = ["-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=15"]
        coding = ["-c:v", "mpeg4", "-g", "5"]
        self._launch(
            ["ffmpeg", "-loglevel", "quiet", *picture, *coding, "-f", "rtsp", f"rtsp://127.0.0.1:{self._feed_port}/cam"]
        )

    def _launch(self, argv: list[str]) -> None:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._children.append(subprocess.Popen(argv, start_new_session=True, **quiet))  # type: ignore[call-overload]

    def _listens(self, port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            return False
        return True

    def send(self, number: int) -> None:
        for child in self._children:
            os.killpg(child.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        for child in self._children:
            child.wait()
        self._children.clear()


def has_gstreamer() -> bool:
    argv = ["/usr/bin/python3", "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
    return Path(argv[0]).exists() and subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.fixture(params=["tcp", "udp"])
def camera(request: pytest.FixtureRequest) -> Iterator[Camera]:
    if request.param == "tcp" and not has_gstreamer():
        pytest.skip("GStreamer's RTSP server is not installed: apt install gir1.2-gst-rtsp-server-1.0 python3-gi")
    if request.param == "udp" and shutil.which("rtsp-server-perl") is None:
        pytest.skip("no RTSP server is installed: apt install rtsp-server-perl")
    camera = Camera(request.param)
    yield camera
    camera.kill()


def wait_for(source: Supervisor, state: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while source.state != state:
        source.next(0.05)
        assert time.monotonic() < deadline, f"{source.state}, not {state}, after {within_s} s: {source.problem}"


def test_rtsp_is_waited_for_lost_and_found_again(
    camera: Camera, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(supervisor, "FIRST_RETRY_S", 0.2)
    source = Supervisor(Source(url=camera.url, transport=camera.transport, stall_s=2, retry_max_s=0.5))
    try:
        wait_for(source, "stalled", 5)  # there is no camera yet
        camera.start()
        wait_for(source, "live", 20)
        frame = source.next(3)
        assert frame is not None and frame.size == (160, 120) and len(frame.data) == 160 * 120 * 3
        camera.send(signal.SIGSTOP)
        wait_for(source, "stalled", 5)
        camera.send(signal.SIGCONT)
        wait_for(source, "live", 20)
        camera.kill()
        wait_for(source, "stalled", 5)
        assert source.next(0.5) is None
    finally:
        source.close()
    assert "s3cret" not in capfd.readouterr().err
