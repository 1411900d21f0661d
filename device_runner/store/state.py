"""Which model runs: one file, with its own checksum, replaced as a whole; the one before it is kept beside it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from device_runner.errors import StoreError
from device_runner.manifest import Sha256
from device_runner.store.disk import Disk

NAME, OLD, NEW = "state.json", "state.json.old", "state.json.new"
MAX_ATTEMPTS = 3  # starts of a trial; a device that restarts in the middle of one has failed it once


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bundles are named by the SHA-256 of their manifest."""

    schema: Literal[1] = 1
    current: Sha256 | None = None  # decides
    previous: Sha256 | None = None  # decided before, and does again if current is damaged
    factory: Sha256 | None = None  # the first that was installed
    staged: Sha256 | None = None  # installed, proven on its golden images, not used yet
    trial: Sha256 | None = None  # runs beside current, and decides nothing
    attempts: Annotated[int, msgspec.Meta(ge=0)] = 0  # how often this trial was started
    version: Annotated[int, msgspec.Meta(ge=0)] = 0  # highest version committed
    quarantined: tuple[Sha256, ...] = ()  # failed their trial

    @property
    def kept(self) -> set[str]:
        """Bundles that must not be removed."""
        return {sha for sha in (self.current, self.previous, self.factory, self.staged, self.trial) if sha}


def write(folder: Path, state: State, disk: Disk) -> None:
    """Replace the state; after a power loss it is the old or the new one."""
    body = msgspec.json.encode(state)
    new, path, old = folder / NEW, folder / NAME, folder / OLD
    disk.remove(new)
    disk.write(new, body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n")
    disk.remove(old)
    if path.exists():
        old.hardlink_to(path)
    disk.rename(new, path)


def read(folder: Path) -> State:
    """The state, or the one before it if its file is damaged.

    Raises:
        StoreError: there is neither.
    """
    for name in (NAME, OLD):
        with suppress(OSError, ValueError, msgspec.MsgspecError):
            body, digest, rest = (folder / name).read_bytes().split(b"\n")
            if hashlib.sha256(body).hexdigest().encode() == digest and not rest:
                return msgspec.json.decode(body, type=State)
    if (folder / NAME).exists() or (folder / OLD).exists():
        raise StoreError(
            f"{folder} is damaged", f"neither {NAME} nor {OLD} is whole", "install a bundle into a new store"
        )
    return State()
