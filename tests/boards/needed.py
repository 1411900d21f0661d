"""Programs and preparations that some tests need, and what to say where they are missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from shrink.boards.emulator import read_manifest
from shrink.boards.places import places

REQUIRED = "ALL_PARTS"
"""Set by .ci/run where it could install all of it: what is missing then is a failure, not a skip."""


PREPARED = places(os.environ).emulator
"""The user's own emulator, also in a test that has a cache directory of its own."""


def _emulator() -> bool:
    prepared = read_manifest(PREPARED)
    return bool(prepared and prepared["plugin"])


NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "emulator": (_emulator, "run `shrink board setup qemu`, with a C compiler"),
    "ssh": (lambda: all(map(shutil.which, ("ssh", "scp", "ssh-keygen", "ssh-keyscan"))), "apt install openssh-client"),
    "virtual board": (lambda: shutil.which("qemu-system-aarch64") is not None, "apt install qemu-system-arm"),
    "adb": (lambda: shutil.which("adb") is not None, "apt install adb"),
}


def needs(name: str) -> None:
    """Skip the test, or fail it where everything should be there."""
    present, fix = NEEDS[name]
    if not present():
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(f"there is no {name}: {fix}")
