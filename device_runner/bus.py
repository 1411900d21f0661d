"""The runner on MQTT: which topics, what they say, and which commands are taken.

    PREFIX/DEVICE/available     retained: online, offline (the last will), stopped
    PREFIX/DEVICE/status        retained: state of source and model, counters
    PREFIX/DEVICE/seen          label and confidence, when the label changes
    PREFIX/DEVICE/event/TOPIC   what actions send
    PREFIX/DEVICE/nonce         retained: the word that the next command must repeat   } only with
    PREFIX/DEVICE/set           {"command": "arm" or "disarm", "nonce": WORD}          } commands = true

A retained command is from the past and is ignored; a command that is sent again carries a used word and is ignored too.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable

import msgspec

from device_runner.clock import SECOND, monotonic_ns
from device_runner.config.parts import Config, Mqtt
from device_runner.errors import Problem
from device_runner.homeassistant import BIRTH_TOPIC, discovery
from device_runner.log import Log
from device_runner.mqtt import Client
from device_runner.mqtt_packets import Message

SEND_S = 1.0  # for what may be dropped
FORGET_S = 10.0
RETAINED = ("available", "status", "nonce")


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may come in on `set`."""

    command: str
    nonce: str


class Bus:
    """One device on one broker."""

    def __init__(self, config: Config, mqtt: Mqtt, log: Log, *, on_online: Callable[[], None] = lambda: None) -> None:
        self._config, self._mqtt, self._log, self._on_online = config, mqtt, log, on_online
        self.base = f"{mqtt.prefix}/{config.device}"
        self.disarmed = False
        self.ignored = 0  # commands that were not followed
        self._nonce = secrets.token_hex(16)
        self._last_status = b""
        topics = [f"{self.base}/set"] * mqtt.commands + [BIRTH_TOPIC] * mqtt.discovery
        self.client = Client(
            mqtt,
            f"{mqtt.prefix}-{config.device}",
            (f"{self.base}/available", b"offline"),
            subscribe=tuple(topics),
            on_message=self._receive,
            on_online=self._announce,
        )

    def event(self, topic: str, payload: bytes, qos: int, within_s: float) -> bool:
        """Send what an action says; as `delivery.Publish`. An unlock (QoS 0) only to a broker that answers."""
        start = monotonic_ns()
        if not qos and not self.client.answers(within_s):
            return False
        left_s = within_s - (monotonic_ns() - start) / SECOND
        return self.client.publish(f"{self.base}/event/{topic}", payload, qos, left_s)

    def tell(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send what may be lost; it is not tried again."""
        self.client.publish(f"{self.base}/{topic}", payload, 0, SEND_S, retain=retain)

    def status(self, payload: bytes) -> None:
        """Tell the status, if it is another than before."""
        if payload != self._last_status and self.client.state == "online":
            self._last_status = payload
            self.tell("status", payload, retain=True)

    def _announce(self) -> None:
        """On the client's thread, after every connect and every birth of Home Assistant."""
        self.tell("available", b"online", retain=True)
        if self._mqtt.commands:
            self.tell("nonce", self._nonce.encode(), retain=True)
        if self._mqtt.discovery:
            topic, payload = discovery(self._config.device, self.base)
            self.client.publish(topic, payload, 0, SEND_S, retain=True)
        if self._last_status:
            self.tell("status", self._last_status, retain=True)
        self._on_online()

    def _receive(self, message: Message) -> None:
        if message.topic == BIRTH_TOPIC:
            if message.payload == b"online":
                self._announce()
        elif message.topic == f"{self.base}/set":
            self._obey(message)

    def _obey(self, message: Message) -> None:
        reason = self._refusal(message)
        if reason is not None:
            self.ignored += 1
            self._log.say(f"warning: a command was ignored: {reason}")
            return
        self.disarmed = json.loads(message.payload)["command"] == "disarm"
        self._nonce = secrets.token_hex(16)
        self.tell("nonce", self._nonce.encode(), retain=True)
        self._log.say(f"the device is {'disarmed' if self.disarmed else 'armed'} by a command")

    def _refusal(self, message: Message) -> str | None:
        if message.retained:
            return "it was retained, so it is from the past"
        try:
            command = msgspec.json.decode(message.payload, type=Command)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return "it is not a command"
        if not secrets.compare_digest(command.nonce.encode(), self._nonce.encode()):
            return "its nonce is not the current one"
        return None if command.command in ("arm", "disarm") else "there is no such command"

    def close(self) -> None:
        """Say that the runner stopped on purpose, and leave."""
        self.client.close({f"{self.base}/available": b"stopped"})


def forget(config: Config, mqtt: Mqtt) -> None:
    """Take back what a broker keeps of a device that is gone: an empty payload ends a retained message.

    Raises:
        Problem: the broker is not reached, or does not acknowledge.
    """
    base = f"{mqtt.prefix}/{config.device}"
    found, _ = discovery(config.device, base)
    online = threading.Event()
    client = Client(mqtt, f"{mqtt.prefix}-{config.device}-forget", (f"{base}/available", b""), on_online=online.set)
    client.start()
    try:
        if not online.wait(FORGET_S):
            raise Problem(f"the broker {mqtt.host} is not reached", client.reason, "check [mqtt] of the configuration")
        for topic in (*(f"{base}/{name}" for name in RETAINED), found):
            if not client.publish(topic, b"", 1, FORGET_S, retain=True):
                raise Problem(f"{topic} is not taken back", "the broker does not acknowledge", "run it again")
    finally:
        client.close()
