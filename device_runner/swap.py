"""Follows the store while the runner runs: tries what is on trial, and changes over when the state says so.

The new model is loaded and proven in its own process first; the change itself happens between two frames.
"""

from __future__ import annotations

import threading

from device_runner import check, heap
from device_runner.bundle import Bundle, open_bundle
from device_runner.clock import SECOND, monotonic_ns
from device_runner.config.parts import Config
from device_runner.errors import Problem
from device_runner.log import Log
from device_runner.loop import Decision, Loop
from device_runner.release import check_release
from device_runner.store.models import Store
from device_runner.store.shadow import Shadow
from device_runner.worker.opening import open_worker, start_worker
from device_runner.worker.process import ProcessWorker

POLL_S = 1.0


class Loading:
    """A model that is about to take over, loading on a thread."""

    def __init__(self, bundle: Bundle, worker: ProcessWorker) -> None:
        self.bundle, self.worker = bundle, worker
        self.done, self.problem = False, None
        self._thread = threading.Thread(target=self._work, name="loading", daemon=True)
        self._thread.start()

    problem: Problem | None

    def _work(self) -> None:
        try:
            self.worker.wait()
        except Problem as problem:
            self.problem = problem
        self.done = True

    def close(self) -> None:
        """Give it up."""
        self.worker.kill()
        self._thread.join(10)
        self.worker.close()


class Swap:
    """What the store asks for, done beside the loop."""

    def __init__(self, config: Config, store: Store, loop: Loop, log: Log) -> None:
        self._config, self._store, self._loop, self._log = config, store, loop, log
        self.shadow: Shadow | None = None
        self._loading: Loading | None = None
        self._refused: str | None = None  # a current bundle that could not be loaded; not tried again
        self._next_ns = 0
        self._has_gone = False  # a bundle of which some memory may be left
        self.swaps = self.rollbacks = 0

    def offer(self, decision: Decision, label: str) -> None:
        """A frame that the current model answered, for the trial if there is one."""
        if self.shadow and decision.seen and decision.seen.confidences:
            self.shadow.offer(decision.frame, decision.seen, label)

    def poll(self) -> None:
        """Do what is due; called between two frames."""
        if self._loading and self._loading.done:
            self._finish_loading(self._loading)
        if self.shadow and self.shadow.outcome is not None:
            self._judge(self.shadow)
        now = monotonic_ns()
        if now < self._next_ns:
            return
        self._next_ns = now + int(POLL_S * SECOND)
        if self._has_gone:
            self._has_gone = False
            heap.give_back()
        try:
            self._follow()
        except Problem as problem:
            self._log.say(f"store: {problem.what}: {problem.why}")

    def _follow(self) -> None:
        state = self._store.state
        running = self._loop.worker.ready.sha256
        if self.shadow and state.trial != self.shadow.bundle.sha256:
            self._end_shadow()
            self._log.say("the trial was ended from outside")
        if state.trial and self.shadow is None and self._loading is None:
            self._begin_trial()
        elif state.current not in (None, running, self._refused) and self._loading is None and self.shadow is None:
            bundle = self._bundle(state.current or "")
            self._loading = Loading(bundle, start_worker(self._config, bundle, self._config.source.motion))

    def _bundle(self, sha256: str) -> Bundle:
        """A stored bundle that this configuration can use."""
        try:
            bundle = open_bundle(self._store.path(sha256))
            check_release(bundle, self._config.trusted_keys, self._config.kind, 0)
            check.check(self._config, bundle.manifest)
        except Problem:
            self._refused = sha256
            raise
        return bundle

    def _begin_trial(self) -> None:
        state = self._store.count_attempt()
        if state.trial is None:
            self.rollbacks += 1
            self._log.say("the trial was started too often without an end: its bundle is quarantined")
            return
        try:
            bundle = self._bundle(state.trial)
        except Problem as problem:
            self._reject(state.trial, f"{problem.what}: {problem.why}")
            return
        self._log.say(f"trial {state.attempts} of {state.trial} begins, beside the current model")
        self.shadow = Shadow(bundle, self._config.trial, start_worker(self._config, bundle))

    def _judge(self, shadow: Shadow) -> None:
        sha256 = shadow.bundle.sha256
        if shadow.outcome:
            self._end_shadow()
            self._reject(sha256, shadow.outcome)
            return
        try:
            if self._store.state.trial != sha256:
                self._end_shadow()
                return
            self._store.commit()
        except Problem as problem:
            self._end_shadow()
            self._log.say(f"the trial passed and cannot be committed: {problem.what}: {problem.why}")
            return
        shadow.close(keep_worker=True)
        self.shadow = None
        share = shadow.health.disagreement
        self._log.say(f"the trial passed, the two agreed in {1 - share:.1%} of frames: {sha256} decides from now on")
        self._take_over(shadow.bundle, shadow.worker)

    def _reject(self, sha256: str, why: str) -> None:
        self.rollbacks += 1
        self._log.say(f"the trial failed: {why}; the current model stays, {sha256} is quarantined")
        try:
            self._store.rollback(sha256)
        except Problem as problem:
            self._log.say(f"store: {problem.what}: {problem.why}")

    def _finish_loading(self, loading: Loading) -> None:
        self._loading = None
        if loading.problem is not None:
            self._refused = loading.bundle.sha256
            self._log.say(f"the new model cannot be loaded, the old one stays: {loading.problem.why}")
            return
        self._log.say(f"{loading.bundle.sha256} decides from now on")
        self._take_over(loading.bundle, loading.worker)

    def _take_over(self, bundle: Bundle, worker: ProcessWorker) -> None:
        old = self._loop.worker
        if self._config.isolation == "inline":
            worker.close()
            self._loop.use(open_worker(self._config, bundle), bundle.manifest.labels)
        else:
            self._loop.use(worker, bundle.manifest.labels)
        old.close()
        self._has_gone = True
        self.swaps += 1

    def _end_shadow(self) -> None:
        if self.shadow:
            self.shadow.close()
            self.shadow = None
            self._has_gone = True

    def close(self) -> None:
        """End what runs beside the loop; a trial goes on at the next start."""
        self._end_shadow()
        if self._loading:
            self._loading.close()
