"""Tells systemd that the runner is ready, and that it still makes progress (sd_notify, without its library)."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

from device_runner.clock import monotonic_ns


class Notifier:
    """Silent where systemd did not ask. `alive` is called by the loop itself, so a loop that hangs is silent too."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        timeout_us = environment.get("WATCHDOG_USEC", "0")
        self._every_ns = int(timeout_us) * 1000 // 4 if timeout_us.isdigit() else 0
        self._next_ns = 0

    def send(self, text: str) -> None:
        """One message, such as READY=1."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(0.2)
                sender.sendto(text.encode(), self._address)

    def alive(self) -> None:
        """The loop has finished a turn; told four times in the time that systemd allows."""
        now = monotonic_ns()
        if self._every_ns and now >= self._next_ns:
            self._next_ns = now + self._every_ns
            self.send("WATCHDOG=1")
