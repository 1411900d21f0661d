"""Directories of this user, as the XDG base directory specification names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """Where shrink keeps what outlives a command."""

    cache: Path  # may be removed at any time
    config: Path

    @property
    def known_hosts(self) -> Path:
        """Keys of the ssh boards that this user trusts."""
        return self.config / "known_hosts"

    @property
    def emulator(self) -> Path:
        """What `shrink board setup qemu` prepared."""
        return self.cache / "qemu"

    @property
    def here(self) -> Path:
        """The boards' directory on this machine."""
        return self.cache / "boards"


def places(environment: Mapping[str, str]) -> Places:
    """From the variables XDG_CACHE_HOME and XDG_CONFIG_HOME, else below the home directory."""
    home = Path(environment.get("HOME") or "~").expanduser()
    found = {}
    for name, default in (("cache", ".cache"), ("config", ".config")):
        given = environment.get(f"XDG_{name.upper()}_HOME", "")
        found[name] = (Path(given) if given.startswith("/") else home / default) / "shrink"
    return Places(**found)
