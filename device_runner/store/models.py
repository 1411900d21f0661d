"""What can be done with a store: install, trial, commit, rollback. Each is one change of the state.

install -> staged --trial--> trial --commit--> current
                               └---rollback--> quarantined
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from device_runner.bundle import Bundle, open_bundle
from device_runner.errors import BundleError, Problem, Quarantined, StoreError
from device_runner.release import check_release, parse
from device_runner.store import state as states
from device_runner.store.disk import Disk, filesystem_problem
from device_runner.store.state import MAX_ATTEMPTS, State


class Store:
    """One directory of models. Several processes may use it; each change locks it."""

    def __init__(self, folder: Path | str, disk: Disk | None = None) -> None:
        self.folder, self._disk = Path(folder), disk or Disk()

    @property
    def state(self) -> State:
        """As it is on the disk now.

        Raises:
            StoreError: it is damaged.
        """
        return states.read(self.folder)

    def path(self, sha256: str) -> Path:
        """Where a bundle lies."""
        return self.folder / "models" / sha256

    @contextmanager
    def _change(self) -> Iterator[State]:
        """Lock, hand out the state, translate what the disk says."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "models").mkdir(exist_ok=True)
            with (self.folder / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield self.state
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            why = f"{error.strerror or error} {name}".strip()
            raise StoreError(f"{self.folder} cannot be changed", why, "free the disk, or make it writable") from error

    def install(
        self,
        source: Path | str,
        prove: Callable[[Path, str], object],
        *,
        keys: str | None = None,
        kind: str | None = None,
    ) -> str:
        """Verify a bundle, copy it in, prove it from its place, stage it. The first one becomes current at once.

        Args:
            source: a bundle, directory or zip.
            prove: loads the stored bundle of that name and replays its golden images, in a process of its own; raises
                if it fails.
            keys: trusted keys; None asks for no signature.
            kind: of this device.

        Returns:
            the bundle's name. Installing what is there already changes nothing.

        Raises:
            Problem: the bundle is damaged or refused; the store is as before.
        """
        bundle = open_bundle(source)
        with self._change() as state:
            problem = filesystem_problem(self.folder)
            if problem:
                raise StoreError(
                    f"{self.folder} is on {problem}", "a rename there does not survive power loss", "use ext4"
                )
            check_release(bundle, keys, kind, state.version)
            if bundle.sha256 in state.quarantined:
                raise Quarantined("this bundle failed its trial here", bundle.sha256, "install another one")
            self._copy(bundle)
            prove(self.path(bundle.sha256), bundle.sha256)
            if bundle.sha256 not in state.kept:
                self._save(_first(state, bundle) if state.current is None else _replace(state, staged=bundle.sha256))
        return bundle.sha256

    def _copy(self, bundle: Bundle) -> None:
        target = self.path(bundle.sha256)
        if self._is_whole(bundle.sha256):
            return
        temporary = target.with_name(f"{bundle.sha256}.new")
        self._disk.remove(temporary)
        self._disk.make_directory(temporary)
        for name, data in bundle.files.items():
            self._disk.write(temporary / name, data)
        self._disk.sync(temporary)
        if target.exists():  # it is damaged, or this would have ended above
            self._disk.remove(target)
        self._disk.rename(temporary, target)

    def _is_whole(self, sha256: str) -> bool:
        try:
            return open_bundle(self.path(sha256)).sha256 == sha256
        except BundleError:
            return False

    def start_trial(self, sha256: str | None = None) -> str:
        """Put the staged bundle, or a named one, on trial beside the current one.

        Raises:
            StoreError: there is none, or it is not in the store.
        """
        with self._change() as state:
            chosen = sha256 or state.staged or state.trial
            if chosen is None:
                raise StoreError("there is nothing to try", "no bundle is staged", "install one first")
            if chosen in state.quarantined:
                raise Quarantined("this bundle failed its trial here", chosen, "install another one")
            if not self._is_whole(chosen):
                raise StoreError(
                    f"{chosen} is not in the store, or damaged", "only what is whole is tried", "install it"
                )
            if chosen not in (state.trial, state.current):
                self._save(_replace(state, trial=chosen, attempts=0, staged=None))
        return chosen

    def count_attempt(self) -> State:
        """One more start of the trial, on the disk before anything is loaded; the fourth is a rollback instead."""
        with self._change() as state:
            if state.trial is None:
                return state
            over = state.attempts >= MAX_ATTEMPTS
            state = _quarantine(state, state.trial) if over else _replace(state, attempts=state.attempts + 1)
            self._save(state)
        return state

    def commit(self) -> str:
        """The bundle on trial, or else the staged one, decides from now on; idempotent.

        Raises:
            StoreError: there is neither, and no current one.
        """
        with self._change() as state:
            chosen = state.trial or state.staged
            if chosen is None:
                if state.current is None:
                    raise StoreError("there is nothing to commit", "the store is empty", "install a bundle first")
                return state.current
            version = max(state.version, self._version(chosen))
            previous = state.current if state.current != chosen else state.previous
            state = _replace(
                state, current=chosen, previous=previous, trial=None, staged=None, attempts=0, version=version
            )
            self._save(state)
            self._collect(state)
        return chosen

    def _version(self, sha256: str) -> int:
        raw = open_bundle(self.path(sha256)).files.get("release.json")
        return parse(raw).version if raw else 0

    def rollback(self, sha256: str | None = None) -> str | None:
        """End the trial and quarantine its bundle; without a trial, drop what is staged; without that, the previous
        bundle decides again. Returns what decides after.

        Args:
            sha256: only if this one is still on trial.
        """
        with self._change() as state:
            if sha256 is not None and state.trial != sha256:
                return state.current
            if state.trial:
                state = _quarantine(state, state.trial)
            elif state.staged:
                state = _replace(state, staged=None)
            elif state.previous and self._is_whole(state.previous):
                state = _replace(state, current=state.previous, previous=None)
            else:
                return state.current
            self._save(state)
            self._collect(state)
            return state.current

    def open_current(self, say: Callable[[str], None]) -> Bundle:
        """The bundle that decides; if it is damaged the previous one, if that is too the factory's.

        Raises:
            StoreError: none is whole.
        """
        state = self.state
        for name in dict.fromkeys(filter(None, (state.current, state.previous, state.factory))):
            try:
                bundle = open_bundle(self.path(name))
                if bundle.sha256 == name:
                    return bundle
                say(f"error: {name} is another bundle than its name says")
            except Problem as problem:
                say(f"error: {problem.what}: {problem.why}; trying the bundle before it")
        raise StoreError(
            f"{self.folder} holds no sound bundle", "none was installed, or all are damaged", "install one"
        )

    def _save(self, state: State) -> None:
        states.write(self.folder, state, self._disk)

    def _collect(self, state: State) -> None:
        """Remove what nothing refers to any more."""
        for path in sorted((self.folder / "models").iterdir()):
            if path.name not in state.kept:
                self._disk.remove(path)


def _replace(state: State, **changes: object) -> State:
    return msgspec.structs.replace(state, **changes)


def _first(state: State, bundle: Bundle) -> State:
    raw = bundle.files.get("release.json")
    return _replace(state, current=bundle.sha256, factory=bundle.sha256, version=parse(raw).version if raw else 0)


def _quarantine(state: State, sha256: str) -> State:
    return _replace(state, trial=None, attempts=0, quarantined=(*state.quarantined[-63:], sha256))
