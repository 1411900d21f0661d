"""Runs the loop: builds its parts from the configuration, keeps them going, and ends them in order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import msgspec

from device_runner import check, heap
from device_runner.audit import Audit
from device_runner.bundle import open_bundle
from device_runner.bus import Bus
from device_runner.config.parts import Config, Http
from device_runner.delivery import Delivery
from device_runner.endpoint import Endpoint
from device_runner.errors import ImageError, Problem
from device_runner.frames import Frame
from device_runner.lines import Lines, record
from device_runner.log import Log
from device_runner.loop import Loop
from device_runner.release import check_release
from device_runner.sources.supervisor import Supervisor
from device_runner.store.models import Store
from device_runner.swap import Swap
from device_runner.systemd import Notifier
from device_runner.watch import Parts, Watch
from device_runner.worker.opening import open_worker

REVIEW_BELOW = 0.6  # a less confident answer is for a person to look at
IDLE_S = 0.5  # longest wait for a frame before what is due is done


@dataclass
class Wishes:
    """What signals and commands ask of the service."""

    stop: bool = False
    reload: bool = False


class Service:
    """One run with one configuration."""

    def __init__(self, config: Config, wishes: Wishes, out: int, log: Log, notifier: Notifier) -> None:
        """Open everything; what is open is closed again if anything fails.

        Raises:
            Problem: the bundle, the model or a file cannot be used.
        """
        self.config, self.wishes, self.log, self.notifier = config, wishes, log, notifier
        with ExitStack() as stack:
            store = Store(config.store) if config.store else None
            self.bundle = store.open_current(log.say) if store else open_bundle(config.bundle or "")
            check_release(self.bundle, config.trusted_keys, config.kind, 0)
            check.check(config, self.bundle.manifest)
            for warning in check.warnings(config, self.bundle.manifest):
                log.say(f"warning: {warning}")
            self.audit = Audit(make_state(config), config.audit_max_bytes, config.audit_every)
            self.source = Supervisor(config.source)
            worker = open_worker(config, self.bundle)
            self.loop = Loop(
                config,
                self.bundle.manifest.labels,
                worker,
                live=self.source.place.live,
                log=self.audit,
                act=lambda record: self.delivery.conclude(record),
            )
            stack.callback(lambda: self.loop.worker.close())  # whichever it is by then
            log.say(f"selftest ok: {worker.ready.golden} golden images on {worker.ready.engine}")
            self.bus = Bus(config, config.mqtt, log, on_online=self._wake) if config.mqtt else None
            patient = not self.source.place.live
            self.delivery = Delivery(config, self.audit, self.bus.event if self.bus else None, patient=patient)
            stack.callback(self.delivery.close)
            self.swap = Swap(config, store, self.loop, log) if store else None
            if self.swap:
                stack.callback(self.swap.close)
            parts = Parts(config, self.loop, self.source, self.delivery, self.swap, self.bus, log, self.audit)
            self.watch = Watch(parts)
            stack.callback(self.watch.close)
            if self.bus:
                stack.callback(self.bus.close)
                self.bus.client.start()
            if config.http:
                stack.callback(open_endpoint(config.http, self.watch).close)
            self.lines = Lines(out, patient=patient)
            stack.callback(self.lines.close)
            stack.callback(self.source.close)
            self._stack = stack.pop_all()

    def _wake(self) -> None:
        self.delivery.wake()

    def run(self) -> int:
        """Decide on frames until the source ends or a signal asks to stop.

        Raises:
            GaveUp: the model's process failed too often.
        """
        self.notifier.send("READY=1")
        while not self.wishes.stop and not self.wishes.reload:
            self.notifier.alive()
            self.watch.tick()
            frame = self.source.next(IDLE_S)
            if self.swap:
                self.swap.poll()
            if frame is not None:
                self._decide(frame)
            elif self.source.state == "eof":
                return self._at_end()
        return 0

    def _decide(self, frame: Frame) -> None:
        decision = self.loop.frame(frame)
        line = record(decision, self.loop.labels, REVIEW_BELOW)
        self.lines.write(msgspec.json.encode(line) + b"\n")
        if line.label is not None and line.confidence is not None:
            self.watch.after(decision, line.label, line.confidence)
            if self.swap:
                self.swap.offer(decision, line.label)
        if decision.problem:
            self.log.say(f"frame: {describe(decision.problem)}")

    def _at_end(self) -> int:
        problem, counts = self.source.problem, self.loop.counts
        self.log.say(f"{counts.frames} frames, {counts.answered} answered, rules fired {counts.fired} times")
        if problem is not None:
            self.log.say(f"error: {problem.what}\n  why: {problem.why}\n  fix: {problem.fix}")
        return 1 if problem or self.loop.counts.refused or self.loop.counts.failed else 0

    def close(self) -> None:
        """End everything, in the order in which frames flow."""
        self._stack.close()


def describe(problem: Problem) -> str:
    """One line; of a bad image only what happened, as why differs for each and would fill the log."""
    return problem.what if isinstance(problem, ImageError) else f"{problem.what}: {problem.why}"


def make_state(config: Config) -> Path | None:
    """The directory for what is kept; None if nothing is to be."""
    if config.state is None:
        return None
    folder = Path(config.state)
    with suppress(OSError):  # a read-only disk: the runner works, what needs the disk says so
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_endpoint(config: Http, watch: Watch) -> Endpoint:
    """Metrics and health.

    Raises:
        Problem: the address cannot be listened on.
    """
    pages = {"/metrics": watch.metrics_page, "/healthz": watch.health_page, "/readyz": watch.ready_page}
    return Endpoint(config.host, config.port, pages)


def serve(read: Callable[[], Config], out: int, log: Log, wishes: Wishes, notifier: Notifier) -> int:
    """Serve until told to stop; on a reload the new configuration must stand before the old one ends.

    Raises:
        Problem: the first configuration cannot be followed, or the model gave up.
    """
    config, before = read(), None
    while True:
        try:
            service = Service(config, wishes, out, log, notifier)
        except Problem as problem:
            if before is None:
                raise
            log.say(f"the old configuration stays: {problem}")
            config, before = before, None
            continue
        try:
            code = service.run()
        finally:
            notifier.send("RELOADING=1" if wishes.reload and not wishes.stop else "STOPPING=1")
            service.close()
        if not wishes.reload or wishes.stop:
            return code
        del service
        heap.give_back()  # its parts refer to each other, and its bundle may have tens of megabytes
        wishes.reload, before = False, config
        config = reread(read, config, log)


def reread(read: Callable[[], Config], old: Config, log: Log) -> Config:
    """The new configuration, or the old one if the new one is wrong."""
    try:
        new = read()
        bundle = Store(new.store).open_current(log.say) if new.store else open_bundle(new.bundle or "")
        check.check(new, bundle.manifest)
    except Problem as problem:
        log.say(f"the old configuration stays: {problem}")
        return old
    log.say("the configuration was read anew")
    return new


def heed_signals(wishes: Wishes) -> None:
    """SIGTERM and Ctrl-C stop, SIGHUP reloads; the loop sees it within a moment."""

    def stop(number: int, frame: FrameType | None) -> None:
        wishes.stop = True

    def reload(number: int, frame: FrameType | None) -> None:
        wishes.reload = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, reload)
