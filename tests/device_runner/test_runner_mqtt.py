"""MQTT with a real broker: alerts arrive, unlocks are never late, commands from the past are ignored."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from broker import Broker, Listener, needs_mosquitto, wait_until
from test_runner_rules import make_record

from device_runner import cli
from device_runner.audit import Audit, Record
from device_runner.bus import Bus
from device_runner.clock import monotonic_ns
from device_runner.config.parts import Action, Config, Mqtt, Rule, Source
from device_runner.delivery import Delivery
from device_runner.homeassistant import COMPONENTS
from device_runner.log import Log
from device_runner.mqtt import Client
from device_runner.mqtt_packets import (
    CONNACK,
    DISCONNECT,
    PINGRESP,
    PUBACK,
    SUBACK,
    SUBSCRIBE,
    Broken,
    Message,
    Parser,
    message,
    packet,
    publish,
)
from device_runner.rules import Memory, Score, Sight

RULE = Rule(name="r", label="cat", min_confidence=0.5)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listener = Listener(broker)
    yield listener
    listener.close()


def config(tmp_path: Path, mqtt: Mqtt, **values: object) -> Config:
    return Config(
        source=Source(url="x"),
        bundle="b",
        state=str(tmp_path),
        device="door",
        dry_run=False,
        action=(
            Action(name="tell", delivery="alert", mqtt="cat", timeout_s=1.0),
            Action(name="open", delivery="unlock", mqtt="open", timeout_s=1.0),
        ),
        mqtt=mqtt,
        **values,  # type: ignore[arg-type]
    )


def fire(number: int, action: str) -> Record:
    """What a rule that fired just now hands over."""
    now = monotonic_ns()
    sight = Sight(captured_ns=now, now_ns=now, inert=None, scores={"cat": Score(0.9, 0.1)})
    rule = msgspec.structs.replace(RULE, action=action)
    record = make_record(rule, Memory(), sight, "fired", Memory())
    return msgspec.structs.replace(record, dry_run=False, id=f"{action}-{number}", seq=number)


@needs_mosquitto
def test_every_alert_of_a_dead_broker_arrives_once_and_in_order_and_no_unlock(
    tmp_path: Path, broker: Broker, listener: Listener
):
    """Ten minutes of one event a second, in short: 100 events while the broker is dead."""
    settings = config(tmp_path, broker.settings)
    bus = Bus(settings, broker.settings, Log(io.StringIO()))
    heard = threading.Event()  # the broker forgets a listener that is away; nothing is sent before it is back
    heard.set()

    def send(topic: str, payload: bytes, qos: int, within_s: float) -> bool:
        return heard.is_set() and bus.event(topic, payload, qos, within_s)

    done = Delivery(settings, Audit(tmp_path, 1 << 20), send, retry_first_s=0.1)
    bus._on_online = done.wake
    bus.client.start()
    wait_until(lambda: bus.client.state == "online")
    done.conclude(fire(0, "tell"))
    done.conclude(fire(0, "open"))
    listener.wait_for("device_runner/door/event/open")
    broker.kill()
    wait_until(lambda: bus.client.state == "offline")
    heard.clear()
    for i in range(1, 101):
        done.conclude(fire(i, "tell"))
        done.conclude(fire(i, "open"))
        wait_until(lambda i=i: done.counts.alerts_kept == i + 1)
    assert len(done.spool or ()) == 100
    broker.start()
    wait_until(lambda: listener.client.connects == 2 and bus.client.connects == 2, 15)
    heard.set()
    wait_until(lambda: done.counts.alerts_delivered == 101, 15)
    wait_until(lambda: len(listener.on("device_runner/door/event/cat")) >= 101)
    ids = [json.loads(p)["id"] for p in listener.on("device_runner/door/event/cat")]
    assert list(dict.fromkeys(ids)) == [f"tell-{i}" for i in range(101)]
    assert len(listener.on("device_runner/door/event/open")) == 1
    assert not list((tmp_path / "spool").iterdir())
    counts = done.counts
    assert counts.unlocks_done == 1 and counts.unlocks_failed + counts.unlocks_late == 100
    done.close()
    bus.close()


@needs_mosquitto
def test_a_broker_that_hangs_passes_no_unlock_on_when_it_wakes_up(tmp_path: Path, broker: Broker, listener: Listener):
    """It takes packets all the while: what lies in its buffer would open the door minutes later."""
    settings = config(tmp_path, broker.settings)
    bus = Bus(settings, msgspec.structs.replace(broker.settings, keepalive_s=60), Log(io.StringIO()))
    bus.client.start()
    wait_until(lambda: bus.client.state == "online")
    assert bus.event("open", b"in time", 0, 1)
    broker.signal(signal.SIGSTOP)
    start = time.monotonic()
    assert not bus.event("open", b"late", 0, 0.3) and time.monotonic() - start < 1
    assert bus.client.state == "online"
    broker.signal(signal.SIGCONT)
    assert bus.event("open", b"in time again", 0, 5)
    listener.wait_for("device_runner/door/event/open", b"in time again")
    assert listener.on("device_runner/door/event/open") == [b"in time", b"in time again"]
    bus.close()


def test_what_was_decided_last_is_told_before_the_end(tmp_path: Path):
    """Not left for the next start: a runner that has answered a folder of images may never be started again."""
    told: list[str] = []

    def send(topic: str, body: bytes, qos: int, seconds: float) -> bool:
        told.append(json.loads(body)["id"])
        return True

    wanted = []
    for number in range(40):
        done = Delivery(config(tmp_path / str(number), Mqtt(host="x")), Audit(None, 1 << 20), send)
        wanted.append(fire(number, "tell"))
        done.conclude(wanted[-1])
        done.close()
        assert done.counts.alerts_delivered == 1 and done.spool is not None and not done.spool.waiting()
    assert told == [record.id for record in wanted]


def test_an_unlock_that_was_decided_last_is_done_before_the_end(tmp_path: Path):
    """Fresh and recorded, it is done, though the end comes before its thread has looked."""
    for number in range(40):
        done = Delivery(config(tmp_path / str(number), Mqtt(host="x")), Audit(tmp_path, 1 << 20), lambda *a: True)
        done.conclude(fire(number, "open"))
        done.close()
        assert done.counts.unlocks_done == 1 and done.counts.unlocks_late == 0


def test_the_end_does_not_wait_for_an_action_that_has_failed(tmp_path: Path):
    tries: list[int] = []

    def fail(topic: str, body: bytes, qos: int, seconds: float) -> bool:
        tries.append(json.loads(body)["seq"])
        return False

    done = Delivery(config(tmp_path, Mqtt(host="x")), Audit(None, 1 << 20), fail, retry_first_s=60.0)
    done.conclude(fire(1, "tell"))
    wait_until(lambda: done.counts.alerts_retried == 1)
    done.conclude(fire(2, "tell"))
    done.close()
    assert tries == [1] and done.spool is not None and len(done.spool.waiting()) == 2


def test_alerts_wait_on_the_disk_for_the_next_start(tmp_path: Path):
    settings = config(tmp_path, Mqtt(host="x"))
    sent: list[bytes] = []
    first = Delivery(settings, Audit(tmp_path, 1 << 20), lambda *a: False, retry_first_s=0.01)
    for i in range(5):
        first.conclude(fire(i, "tell"))
    wait_until(lambda: first.counts.alerts_kept == 5)
    first.close()
    (tmp_path / "spool" / "x.tmp").write_bytes(b"interrupted")
    (tmp_path / "spool" / "0000000000000000.json").write_bytes(b"damaged")

    def keep(topic: str, payload: bytes, qos: int, within_s: float) -> bool:
        sent.append(payload)
        return True

    second = Delivery(settings, Audit(tmp_path, 1 << 20), keep)
    wait_until(lambda: len(sent) == 5)
    second.close()
    assert [json.loads(p)["id"] for p in sent] == [f"tell-{i}" for i in range(5)]
    assert not list((tmp_path / "spool").iterdir())


def test_the_spool_stays_within_its_quota_and_gives_up_the_oldest(tmp_path: Path):
    settings = config(tmp_path, Mqtt(host="x"), spool_max_bytes=4096)
    done = Delivery(settings, Audit(None, 1 << 20), lambda *a: False)
    for i in range(60):
        done.conclude(fire(i, "tell"))
        time.sleep(0.001)
    wait_until(lambda: done.counts.alerts_kept == 60)
    done.close()
    assert done.spool is not None and done.spool.size_bytes <= 4096
    kept = [json.loads(p.read_bytes())["id"] for p in sorted((tmp_path / "spool").iterdir())]
    assert kept[-1] == "tell-59" and kept == [f"tell-{i}" for i in range(60 - len(kept), 60)]
    assert done.spool.evicted == 60 - len(kept)


@pytest.mark.parametrize("patient", [True, False])
def test_decisions_on_files_wait_for_a_slow_disk_and_those_of_a_camera_are_counted(tmp_path: Path, patient: bool):
    disk = threading.Event()

    class Slow(Audit):
        def write(self, record: Record) -> bool:
            disk.wait()
            return super().write(record)

    done = Delivery(config(tmp_path, Mqtt(host="x")), Slow(tmp_path, 1 << 20), lambda *a: True, patient=patient)
    threading.Timer(0.5, disk.set).start()
    for i in range(100):
        done.conclude(fire(i, "tell"))
    assert (done.counts.lost == 0) == patient
    wait_until(lambda: done.counts.alerts_kept == 100 - done.counts.lost)
    done.close()


def test_an_unlock_that_is_late_or_cannot_be_recorded_is_not_done(tmp_path: Path):
    settings = config(tmp_path, Mqtt(host="x"))
    sent: list[str] = []

    def slow(topic: str, payload: bytes, qos: int, within_s: float) -> bool:
        sent.append(topic)
        time.sleep(0.2)
        return True

    done = Delivery(settings, Audit(tmp_path, 1 << 20), slow)
    old = fire(0, "open")
    old = msgspec.structs.replace(
        old, sight=msgspec.structs.replace(old.sight, captured_ns=monotonic_ns() - 2_100_000_000)
    )
    done.conclude(old)
    wait_until(lambda: done.counts.unlocks_late == 1)
    done.conclude(fire(1, "open"))
    wait_until(lambda: done.counts.unlocks_done == 1)
    done.close()
    unrecorded = Delivery(settings, Audit(tmp_path / "no such folder", 1 << 20), slow)
    unrecorded.conclude(fire(2, "open"))
    wait_until(lambda: unrecorded.counts.unlocks_unrecorded == 1)
    unrecorded.close()
    assert sent == ["open"]


def test_a_program_that_was_started_in_time_may_take_its_time(tmp_path: Path):
    """The expiry of an unlock bounds its start; a door that opens for a second is not cut off."""
    program = tmp_path / "open"
    program.write_text(f"#!/bin/sh\nsleep 0.6\necho done > {tmp_path}/opened\n")
    program.chmod(0o755)
    action = Action(name="open", delivery="unlock", exec=(str(program),), expiry_s=0.3, timeout_s=5)
    settings = msgspec.structs.replace(config(tmp_path, Mqtt(host="x")), action=(action,))
    done = Delivery(settings, Audit(tmp_path, 1 << 20))
    done.conclude(fire(0, "open"))
    wait_until(lambda: done.counts.unlocks_done == 1)
    done.close()
    assert (tmp_path / "opened").exists()


@needs_mosquitto
def test_a_killed_runner_is_offline_and_a_stopped_one_says_so(tmp_path: Path, broker: Broker, listener: Listener):
    code = (
        "import io, time; from device_runner.bus import Bus; from device_runner.log import Log\n"
        "from device_runner.config.parts import *\n"
        f"m = Mqtt(host='127.0.0.1', port={broker.port}, keepalive_s=1)\n"
        "b = Bus(Config(source=Source(url='x'), bundle='b', device='door', mqtt=m), m, Log(io.StringIO()))\n"
        "b.client.start()\n"
        "while b.client.state != 'online': time.sleep(0.01)\n"
        "time.sleep({sleep}); b.close()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code.replace("{sleep}", "60")])
    listener.wait_for("device_runner/door/available", b"online")
    child.send_signal(signal.SIGKILL)
    child.wait()
    listener.wait_for("device_runner/door/available", b"offline", within_s=3)
    subprocess.run([sys.executable, "-c", code.replace("{sleep}", "0")], check=True)
    assert listener.wait_for("device_runner/door/available", b"stopped") == b"stopped"


class LateEvent(threading.Event):
    """Who sets it is interrupted right after."""

    def set(self) -> None:
        super().set()
        time.sleep(0.2)


def stopped_by(
    server: socket.socket,
    close: Callable[[socket.socket, Client], None],
    on_online: Callable[[], None] = lambda: None,
) -> Client:
    """A client that this server took in, and that `close` then ends."""
    settings = Mqtt(host="127.0.0.1", port=server.getsockname()[1])
    client = Client(settings, "c", ("a", b"b"), on_online=on_online, retry_first_s=9)
    client.start()
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(bytes([0x20, 2, 0, 0]))
        wait_until(lambda: client.state == "online")
        close(connection, client)
    return client


def test_whoever_closes_says_goodbye_even_if_the_thread_is_faster():
    """Its thread wakes up just after it was told to end: the connection may not end before the goodbye was sent."""
    received = bytearray()

    def close(connection: socket.socket, client: Client) -> None:
        client._closing = LateEvent()
        closing = threading.Thread(target=client.close)
        closing.start()
        wait_until(client._closing.is_set)
        connection.sendall(packet(PINGRESP, 0, b""))  # wakes the thread
        while part := connection.recv(4096):
            received.extend(part)
        connection.close()
        closing.join()

    with socket.create_server(("127.0.0.1", 0)) as server:
        stopped_by(server, close)
    assert bytes(received) == packet(DISCONNECT, 0, b"")


def test_what_the_broker_still_says_does_not_tear_the_goodbye_away():
    """A connection that is closed with unread bytes is reset, and a reset may overtake the goodbye."""

    def close(connection: socket.socket, client: Client) -> None:
        closing = threading.Thread(target=client.close)
        closing.start()
        assert connection.recv(4096) == packet(DISCONNECT, 0, b"")
        connection.sendall(packet(PINGRESP, 0, b""))
        time.sleep(0.1)
        connection.sendall(packet(PINGRESP, 0, b""))  # refused, had the client closed its end by now
        time.sleep(0.1)
        assert connection.recv(4096) == b""
        assert closing.is_alive()
        connection.close()
        closing.join()

    with socket.create_server(("127.0.0.1", 0)) as server:
        client = stopped_by(server, close)
    assert client.state == "offline"


def test_nothing_is_said_after_the_last_words():
    """The thread that is just about to say that the runner is online is late: it is stopping."""
    stopping, said = threading.Event(), threading.Event()
    clients: list[Client] = []

    def on_online() -> None:
        stopping.wait(5)
        assert not clients[0].publish("available", b"online", 0, 1.0, retain=True)
        said.set()

    def close(connection: socket.socket, client: Client) -> None:
        clients.append(client)
        closing = threading.Thread(target=client.close, args=({"available": b"stopped"},))
        closing.start()
        assert connection.recv(4096) == publish("available", b"stopped", 1, retain=True)
        stopping.set()
        said.wait(5)
        connection.sendall(packet(PUBACK, 0, b"\x00\x01"))
        assert connection.recv(4096) == packet(DISCONNECT, 0, b"")
        connection.close()
        closing.join()

    with socket.create_server(("127.0.0.1", 0)) as server:
        stopped_by(server, close, on_online)
    assert said.is_set()


@needs_mosquitto
def test_retained_and_repeated_commands_are_ignored(tmp_path: Path, broker: Broker, listener: Listener):
    text = io.StringIO()
    settings = msgspec.structs.replace(broker.settings, commands=True)
    old = json.dumps({"command": "disarm", "nonce": "0" * 32}).encode()
    assert listener.client.publish("device_runner/door/set", old, 1, 1, retain=True)
    bus = Bus(config(tmp_path, settings), settings, Log(text))
    bus.client.start()
    wait_until(lambda: bus.ignored == 1)
    assert "it was retained" in text.getvalue() and not bus.disarmed
    word = listener.wait_for("device_runner/door/nonce").decode()
    good = json.dumps({"command": "disarm", "nonce": word}).encode()
    listener.client.publish("device_runner/door/set", good, 1, 1)
    wait_until(lambda: bus.disarmed)
    for payload in (good, b"", b"{", b"[" * 4000, b"\xff", b'{"command":"arm"}', old, os.urandom(100)):
        before = bus.ignored
        listener.client.publish("device_runner/door/set", payload, 1, 1)
        wait_until(lambda before=before: bus.ignored == before + 1)
    assert bus.disarmed
    wait_until(lambda: listener.on("device_runner/door/nonce")[-1].decode() != word)
    word = listener.on("device_runner/door/nonce")[-1].decode()
    listener.client.publish("device_runner/door/set", json.dumps({"command": "arm", "nonce": word}).encode(), 1, 1)
    wait_until(lambda: not bus.disarmed)
    bus.close()


def test_ten_thousand_payloads_are_no_command(tmp_path: Path):
    """Random bytes, and a good command with random bytes in it; none is followed, none ends the thread."""
    settings = Mqtt(host="x", commands=True)
    bus, rng = Bus(config(tmp_path, settings), settings, Log(io.StringIO())), random.Random(1)
    good = json.dumps({"command": "disarm", "nonce": bus._nonce}).encode()
    for i in range(10_000):
        payload = bytearray(good if i % 2 else rng.randbytes(rng.randrange(4096)))
        if i % 2:
            payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)  # one bit: never the command it was
        bus._receive(Message("device_runner/door/set", bytes(payload), False, 0, 0))
    assert bus.ignored == 10_000 and not bus.disarmed
    bus._receive(Message("device_runner/door/set", good, False, 0, 0))
    assert bus.disarmed


def test_a_broker_that_denies_the_commands_is_told(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = Mqtt(host="127.0.0.1", port=server.getsockname()[1], commands=True)
        bus = Bus(config(tmp_path, settings), settings, Log(io.StringIO()))
        bus.client.start()
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(packet(CONNACK, 0, b"\0\0"))
            assert connection.recv(4096)[0] >> 4 == SUBSCRIBE
            connection.sendall(packet(SUBACK, 0, b"\x00\x01\x80"))
            wait_until(lambda: bus.client.reason == "the broker refused a subscription")
        assert bus.client.state == "offline"
        bus.close()


@needs_mosquitto
def test_without_commands_nothing_is_listened_to(tmp_path: Path, broker: Broker, listener: Listener):
    bus = Bus(config(tmp_path, broker.settings), broker.settings, Log(io.StringIO()))
    bus.client.start()
    listener.wait_for("device_runner/door/available", b"online")
    listener.client.publish("device_runner/door/set", b'{"command":"disarm","nonce":""}', 1, 1)
    time.sleep(0.2)
    assert not bus.disarmed and bus.ignored == 0 and not listener.on("device_runner/door/nonce")
    bus.close()


@needs_mosquitto
def test_a_device_that_is_removed_is_forgotten(tmp_path: Path, broker: Broker, listener: Listener, bundle_path: Path):
    settings = msgspec.structs.replace(broker.settings, discovery=True, commands=True)
    bus = Bus(config(tmp_path, settings), settings, Log(io.StringIO()))
    bus.client.start()
    topics = ["homeassistant/device/door/config", "device_runner/door/available", "device_runner/door/nonce"]
    for topic in topics:
        listener.wait_for(topic)
    bus.status(b"{}")
    listener.wait_for("device_runner/door/status")
    bus.close()
    file = tmp_path / "c.toml"
    file.write_text(f'bundle = "{bundle_path}"\ndevice = "door"\n[source]\nurl = "-"\n')
    assert cli.main(["forget", str(file)]) == 2  # no broker is named
    file.write_text(file.read_text() + f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n')
    assert cli.main(["forget", str(file)]) == 0
    late = Listener(broker)  # hears what the broker still keeps
    late.client.publish("listener/mark", b"", 1, 1)
    late.wait_for("listener/mark")
    late.close()
    assert {message.topic for message in late.heard if message.retained and "door" in message.topic} == set()
    broker.kill()
    assert cli.main(["forget", str(file)]) == 1


@needs_mosquitto
def test_home_assistant_hears_of_the_device_again_when_it_is_born(tmp_path: Path, broker: Broker, listener: Listener):
    settings = msgspec.structs.replace(broker.settings, discovery=True)
    bus = Bus(config(tmp_path, settings), settings, Log(io.StringIO()))
    bus.client.start()
    topic = "homeassistant/device/door/config"
    told = json.loads(listener.wait_for(topic))
    assert told["avty_t"] == "device_runner/door/available" and set(told["cmps"]) == set(COMPONENTS)
    assert len({c["unique_id"] for c in told["cmps"].values()}) == len(COMPONENTS)
    listener.client.publish("homeassistant/status", b"online", 1, 1)
    wait_until(lambda: len(listener.on(topic)) == 2, 2)
    bus.close()


@needs_mosquitto
def test_a_broker_that_refuses_is_told_and_tried_again_without_piling_up(tmp_path: Path):
    broker = Broker(tmp_path, "allow_anonymous false\n")
    (tmp_path / "password").write_text("s3cret\n")
    settings = msgspec.structs.replace(broker.settings, username="joe", password_file=str(tmp_path / "password"))
    threads = threading.active_count()
    client = Client(settings, "c", ("a", b"b"), retry_first_s=0.05)
    client.start()
    wait_until(lambda: "the broker refused: " in client.reason)
    assert client.state == "offline" and "s3cret" not in client.reason
    assert not client.publish("t", b"x", 0, 0.1)
    assert threading.active_count() == threads + 1
    client.close()
    broker.kill()


def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("device_runner.mqtt.CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(Mqtt(host="127.0.0.1", port=silent.getsockname()[1]), "c", ("a", b"b"), retry_first_s=0.05)
        client.start()
        wait_until(lambda: client.reason == "TimeoutError")
        assert not client.publish("t", b"x", 1, 0.1)
        start = time.monotonic()
        client.close()
        assert time.monotonic() - start < 3


def test_a_packet_that_was_sent_in_part_breaks_the_connection(monkeypatch: pytest.MonkeyPatch):
    """A broker that stops reading: the unlock is not sent later, when it reads again."""
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(Mqtt(host="127.0.0.1", port=server.getsockname()[1]), "c", ("a", b"b"), retry_first_s=9)
        client.start()
        connection, _ = server.accept()
        connection.recv(4096)
        connection.sendall(bytes([0x20, 2, 0, 0]))
        wait_until(lambda: client.state == "online")
        assert not client.publish("open", b"x" * (32 << 20), 0, 0.3)
        while part := connection.recv(1 << 20):
            received += part
        connection.close()
        assert len(received) < 32 << 20
        with pytest.raises(Broken):
            Parser().feed(bytes(received))  # and what arrived is no whole packet a broker would take from us
        client.close()


@pytest.mark.parametrize("seed", range(50))
def test_random_bytes_from_a_broker_do_no_harm(seed: int):
    rng, parser = random.Random(seed), Parser()
    good = publish("a/b", b"x" * rng.randrange(300), rng.randrange(3))
    stream = bytearray(good * 3)
    for _ in range(rng.randrange(6)):
        stream[rng.randrange(len(stream))] = rng.randrange(256)
    try:
        for i in range(0, len(stream), 7):
            for kind, flags, body in parser.feed(bytes(stream[i : i + 7])):
                if kind == 3:
                    message(flags, body)
    except Broken:
        pass


@pytest.mark.parametrize("size", [0, 1, 127, 128, 4000])
def test_a_packet_survives_its_parser_in_any_pieces(size: int):
    for step in (1, 3, 5000):
        data, parser = packet(3, 2, b"x" * size) * 2, Parser()
        found = [p for i in range(0, len(data), step) for p in parser.feed(data[i : i + step])]
        assert found == [(3, 2, b"x" * size)] * 2


def test_an_action_that_is_configured_no_more_is_dropped_from_the_spool(tmp_path: Path):
    settings = config(tmp_path, Mqtt(host="x"))
    first = Delivery(settings, Audit(tmp_path, 1 << 20), lambda *a: False)
    first.conclude(fire(0, "tell"))
    wait_until(lambda: first.counts.alerts_kept == 1)
    first.close()
    second = Delivery(msgspec.structs.replace(settings, action=()), Audit(tmp_path, 1 << 20), lambda *a: False)
    wait_until(lambda: not list((tmp_path / "spool").iterdir()))
    second.close()
    assert second.counts.alerts_delivered == 0
