"""A real mosquitto for the tests, on a port of its own, and a client that hears everything."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_runner.config.parts import Mqtt
from device_runner.mqtt import Client
from device_runner.mqtt_packets import Message

PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_mosquitto = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt install mosquitto")


class Broker:
    """Can be ended, and started again on the same port."""

    def __init__(self, folder: Path, extra: str = "allow_anonymous true\n") -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"user root\nlistener {self.port} 127.0.0.1\n{extra}")
        self._child: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert PROGRAM is not None
        argv = [PROGRAM, "-c", str(self._config)]
        self._child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
        except OSError:
            return False
        return True

    def signal(self, number: int) -> None:
        if self._child:
            self._child.send_signal(number)

    def kill(self) -> None:
        if self._child:
            self._child.kill()
            self._child.wait()
            self._child = None

    @property
    def settings(self) -> Mqtt:
        return Mqtt(host="127.0.0.1", port=self.port, keepalive_s=2)


class Listener:
    """Hears everything on a broker, in order."""

    def __init__(self, broker: Broker, topic: str = "#") -> None:
        self.heard: list[Message] = []
        self._lock = threading.Lock()
        settings = Mqtt(host="127.0.0.1", port=broker.port, keepalive_s=60)
        self.client = Client(
            settings, "listener", ("listener/gone", b""), subscribe=(topic,), on_message=self._hear, retry_first_s=0.1
        )
        self.client.start()
        wait_until(lambda: self.client.state == "online")

    def _hear(self, message: Message) -> None:
        with self._lock:
            self.heard.append(message)

    def on(self, topic: str) -> list[bytes]:
        with self._lock:
            return [m.payload for m in self.heard if m.topic == topic]

    def wait_for(self, topic: str, payload: bytes | None = None, within_s: float = 6.0) -> bytes:
        wait_until(lambda: any(payload in (None, p) for p in self.on(topic)), within_s)
        return self.on(topic)[-1]

    def close(self) -> None:
        self.client.close()


def wait_until(holds: Callable[[], bool], within_s: float = 6.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
