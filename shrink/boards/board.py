"""A board as data, and how its tools' complaints become errors."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from shrink.errors import BoardError, nearest

Said = tuple[str, str, str]
"""(what a tool says, as a pattern; why that is; what to do about it): `{url}` is the board's."""


@dataclass(frozen=True, slots=True)
class Board:
    """How to run a program on a board, and how to put files there, in words for the local system."""

    url: str
    kind: str  # the scheme: local, ssh, adb, qemu
    python: tuple[str, ...]  # the words that start Python there
    base: str  # a directory there that is shrink's own; "~" is the user's home
    reach: tuple[str, ...] = ()  # words in front of the one that a shell there reads; (): started directly
    copy: tuple[str, ...] = ("cp", "--")  # words in front of the files to copy
    copy_to: str = "{folder}"  # the last word of a copy
    pip: str = "{python} -m pip install"  # how a user installs there
    address: tuple[str, int] | None = None  # host and port, where it has one
    emulates: str | None = None  # the processor, if it is emulated
    plugin: str = ""  # of the emulator, that counts instructions
    environment: dict[str, str] = field(default_factory=dict)  # of local commands, beside what they inherit
    complaints: tuple[Said, ...] = ()

    def running(self, *arguments: str) -> list[str]:
        """The local command that runs Python there."""
        words = [*self.python, *arguments]
        return [*self.reach, shlex.join(words)] if self.reach else words

    def copying(self, files: Sequence[str], folder: str) -> list[str]:
        """The local command that copies files into a directory there."""
        return [*self.copy, *files, self.copy_to.format(folder=folder)]

    def install_command(self, packages: str) -> str:
        """What to type to install packages there."""
        return f"{self.pip.format(python=shlex.join(self.python))} {packages}"

    def explain(self, said: str, code: int | None, tool: str = "") -> BoardError:
        """The error behind what a tool wrote to stderr."""
        for pattern, why, fix in self.complaints:
            if re.search(pattern, f"{said}\nexit code {code}"):
                return BoardError(f"{self.url} cannot be used", why, fix.format(url=self.url))
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
        why = f"{tool or (self.reach or self.python)[0]} ended with {code}: {' '.join(last.split())[:300]}"
        return BoardError(f"{self.url} cannot be used", why, f"try `{shlex.join(self.running('--version'))}`")


def wrong(url: str, why: str, kinds: Sequence[str]) -> BoardError:
    """A URL that names no board."""
    return BoardError(f"{url!r} is no board", why, nearest(url.partition(":")[0], kinds))
