"""Actions that post to a web server, with servers that answer, redirect, hang and drip."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from broker import wait_until
from test_runner_mqtt import config, fire

from device_runner.audit import Audit
from device_runner.config.parts import Action, Mqtt
from device_runner.delivery import Delivery
from device_runner.webhooks import post

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Server:
    """Answers every request with `answer`, a byte every `pause_s` if that is set."""

    def __init__(self) -> None:
        self.answer, self.pause_s, self.requests = OK, 0.0, list[bytes]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook?a=1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with suppress(OSError), connection:
                    request = b""
                    while b"\r\n\r\n" not in request or not request.endswith((b"}", b"x")):
                        request += connection.recv(65536)
                    self.requests.append(request)
                    for byte in self.answer:
                        connection.sendall(bytes([byte]))
                        time.sleep(self.pause_s)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_it_posts_json_with_the_token_of_the_file(server: Server, tmp_path: Path):
    (tmp_path / "token").write_text("s3cret\n")
    assert post(server.url, str(tmp_path / "token"), b"{}", 5)
    head = server.requests[0].decode()
    assert head.startswith("POST /hook?a=1 HTTP/1.1\r\n") and head.endswith("\r\n\r\n{}")
    assert "Authorization: Bearer s3cret\r\n" in head and "Content-Type: application/json\r\n" in head
    (tmp_path / "token").write_text("a\r\nHost: evil")
    assert not post(server.url, str(tmp_path / "token"), b"{}", 5)
    assert not post(server.url, str(tmp_path / "none"), b"{}", 5) and len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
        b"HTTP/1.1 500 No\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
    ],
)
def test_another_answer_than_2xx_is_no_delivery_and_no_redirect_is_followed(answer: bytes, server: Server):
    server.answer = answer
    assert not post(server.url, None, b"x", 5) and len(server.requests) == 1


def test_a_server_that_drips_is_cut_off_at_the_deadline(server: Server):
    """Every byte comes in time, the whole answer never."""
    server.answer, server.pause_s = b"HTTP/1.1 204 No Content\r\n" + b"X: y\r\n" * 1000, 0.05
    start = time.monotonic()
    assert not post(server.url, None, b"x", 0.5)
    assert time.monotonic() - start < 20  # it would take minutes


def test_alerts_are_posted_until_taken_in_order_and_an_unlock_only_once(server: Server, tmp_path: Path):
    tell = Action(name="tell", delivery="alert", webhook=server.url, timeout_s=5)
    unlock = Action(name="open", delivery="unlock", webhook=server.url)
    settings = msgspec.structs.replace(config(tmp_path, Mqtt(host="x")), action=(tell, unlock))
    server.answer = b"HTTP/1.1 503 Busy\r\n\r\n"
    done = Delivery(settings, Audit(tmp_path, 1 << 20), retry_first_s=0.05)
    done.conclude(fire(0, "open"))
    wait_until(lambda: done.counts.unlocks_failed == 1)
    done.conclude(fire(1, "tell"))
    done.conclude(fire(2, "tell"))
    wait_until(lambda: done.counts.alerts_retried > 1)
    server.answer = OK
    wait_until(lambda: done.counts.alerts_delivered == 2)
    done.close()
    ids = [json.loads(request.rpartition(b"\r\n\r\n")[2])["id"] for request in server.requests]
    assert ids.count("open-0") == 1 and ids.count("tell-2") == 1 and ids[-2:] == ["tell-1", "tell-2"]
