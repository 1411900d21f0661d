"""Runs the program of an action: no shell, a clean environment, a deadline, and only a program nobody else can swap."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_runner import children
from device_runner.errors import ConfigError
from device_runner.text import slug

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def check_program(path: str) -> None:
    """Refuse a program that is not there, cannot be run, or that everybody may change.

    Raises:
        ConfigError: which of these.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be used", error.strerror or str(error), "install it, or correct exec"
        ) from error
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK):
        raise ConfigError(f"{path} cannot be run", "it is no executable file", f"chmod +x {path}")
    if status.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path} may be changed by everybody", "an action runs what is in it", f"chmod o-w {path}")


def fill(argv: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """The arguments with their {fields} filled in; whatever comes from a label becomes a slug first."""
    safe = {key: f"{value:.4f}" if isinstance(value, float) else slug(str(value)) for key, value in values.items()}
    return [argv[0], *(argument.format_map(safe) for argument in argv[1:])]


def run(argv: Sequence[str], timeout_s: float) -> bool:
    """Run it and wait; False if it fails, cannot start, or was killed at the deadline with all that it started."""
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        return False
    try:
        return child.wait(timeout_s) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        children.end(child)
