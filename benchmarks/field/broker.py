"""Ten minutes without a broker, at one event a second, in short: what arrives once it is back?

A real mosquitto is killed for half of the events and stopped (it accepts and answers nothing) for the other half. Every
event is an alert and an unlock: each alert must arrive, once by its id and in order, and no unlock at all.
"""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

from broker import Broker, Listener, wait_until
from test_runner_mqtt import config, fire

from benchmarks.field.costs import field_kib
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.audit import Audit
from device_runner.bus import Bus
from device_runner.delivery import Delivery
from device_runner.log import Log

EVENTS = 600
BASE = "device_runner/door/event"


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """All events, then what was heard of them."""
    n = max(int(EVENTS * scale), 2)
    broker = Broker(scratch)
    listener = Listener(broker)
    try:
        result = outage(scratch, broker, listener, n)
    finally:
        listener.close()
        broker.kill()
    problems = [
        text
        for text, holds in (
            (f"{result['alerts_arrived']} of {n} alerts arrived", result["alerts_arrived"] != n),
            ("the alerts are out of order", not result["in_order"]),
            (f"{result['unlocks']} unlocks were sent late", result["unlocks"] != 0),
            (f"{result['left_in_spool']} alerts stayed in the spool", result["left_in_spool"] != 0),
            (f"memory grew by {result['growth_kib']} KiB", result["growth_kib"] > 1024),
        )
        if holds
    ]
    failure = Failure(what="alerts were lost, or an unlock was late", why="; ".join(problems), fix="mend it")
    return Measured(result, failure if problems else None, notes=(json.dumps(result),))


def outage(folder: Path, broker: Broker, listener: Listener, n: int) -> dict[str, Any]:
    """Half of the events while the broker is dead, half while it hangs; then it comes back."""
    settings = config(folder, broker.settings)
    bus = Bus(settings, broker.settings, Log(io.StringIO()))
    audible = threading.Event()  # a broker that was killed forgets who listens: nothing is sent before it knows again
    audible.set()

    def send(topic: str, payload: bytes, qos: int, within_s: float) -> bool:
        return audible.is_set() and bus.event(topic, payload, qos, within_s)

    done = Delivery(settings, Audit(folder, 1 << 20), send)
    bus._on_online = done.wake
    bus.client.start()
    wait_until(lambda: bus.client.state == "online")
    broker.kill()
    wait_until(lambda: bus.client.state == "offline")
    audible.clear()
    before = field_kib(os.getpid(), "Private_Dirty:")
    tell(done, range(n // 2))
    broker.start()
    wait_until(lambda: bus.client.connects == 2 and listener.client.connects == 2, 60)
    broker.signal(signal.SIGSTOP)
    audible.set()
    tell(done, range(n // 2, n))
    growth = field_kib(os.getpid(), "Private_Dirty:") - before
    waited = len(done.spool or ())
    wait_until(lambda: done.counts.unlocks_failed + done.counts.unlocks_late == n, 30)
    connects = listener.client.connects
    broker.signal(signal.SIGCONT)
    wait_until(lambda: done.counts.alerts_delivered == n, 90)
    wait_until(lambda: len(set(ids(listener))) == n, 30)
    heard, unlocks = ids(listener), listener.on(f"{BASE}/open")
    done.close()
    bus.close()
    once = list(dict.fromkeys(heard))
    return {
        "events": n,
        "waited": waited,
        "alerts_arrived": len(once),
        "in_order": once == [f"tell-{i}" for i in range(n)],
        "arrived_again": len(heard) - len(once),
        "unlocks": len(unlocks),
        "left_in_spool": len(list((folder / "spool").iterdir())),
        "listener_reconnected": listener.client.connects - connects,
        "growth_kib": growth,
    }


def tell(done: Delivery, numbers: range) -> None:
    """One alert and one unlock for each number."""
    for i in numbers:
        done.conclude(fire(i, "tell"))
        done.conclude(fire(i, "open"))
        wait_until(lambda i=i: done.counts.alerts_kept == i + 1)


def ids(listener: Listener) -> list[str]:
    """Of the alerts that were heard, in order."""
    return [json.loads(payload)["id"] for payload in listener.on(f"{BASE}/cat")]
