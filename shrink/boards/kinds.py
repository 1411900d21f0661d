"""From the URL of a board to the board: one row per kind."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlsplit

from shrink.boards.board import Board, Said, wrong
from shrink.boards.emulator import emulated
from shrink.boards.phone import python_words
from shrink.boards.places import Places
from shrink.errors import BoardError

EXAMPLES = {
    "local": "local",
    "ssh": "ssh://pi@raspberrypi.local",
    "adb": "adb:SERIAL",
    "qemu": "qemu:cortex-a72",
}
SUMMARIES = {
    "local": "this machine",
    "ssh": "a Linux board, by the system's ssh and scp; first: shrink board trust URL",
    "adb": "an Android device, by the system's adb; first: shrink board setup adb:SERIAL",
    "qemu": "an emulated ARM processor: answers and instruction counts, no times; first: shrink board setup qemu",
}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,127}")
PATH = re.compile(r"[A-Za-z0-9/_][A-Za-z0-9/._+-]{0,255}")

NO_PYTHON: tuple[Said, ...] = (
    (
        r"(?i)(python\S*: (inaccessible or )?(command )?not found|no such file or directory|exit code 127)",
        "there is no Python at the name or path that was tried",
        "install python3 there, or say where it is: {url}?python=/path/to/python3",
    ),
)
SSH_SAYS: tuple[Said, ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that was trusted: another machine answers, or it was installed anew; "
        "nothing was sent",
        "if you know why the key changed: shrink board trust {url}",
    ),
    (r"[Hh]ost key verification failed|host key is known for", "its host key is not known", "shrink board trust {url}"),
    (r"Could not resolve hostname", "no such host is known to this network", "check the name, or give its address"),
    (r"Permission denied", "it takes none of this user's keys", "ssh-copy-id to it, or name another user in the URL"),
    (r"Connection refused", "no ssh server answers at that port", "start it: sudo systemctl enable --now ssh"),
    (r"timed out|No route to host|unreachable", "it does not answer", "check that it is on, and on this network"),
)
NOT_SENT: tuple[Said, ...] = (
    (
        NO_PYTHON[0][0],
        "no Python has been sent there yet",
        "shrink board setup {url}, or say where one is: {url}?python=/path/to/python3",
    ),
)
ADB_SAYS: tuple[Said, ...] = (
    (r"device '[^']*' not found|no devices", "adb knows no device of that serial", "connect it; see `adb devices`"),
    (r"unauthorized|authorizing", "the device has not allowed this computer", "allow USB debugging on its screen"),
    (r"device offline", "adb has lost the device", "adb reconnect"),
    (r"No space left", "its storage is full", "make room, or name another directory there: {url}?dir=/PATH"),
    (r"tar: (inaccessible or )?not found", "it has no tar", "say where a Python is: {url}?python=/path/to/python3"),
)


def board_of(url: str, places: Places) -> Board:
    """The board of a URL.

    Raises:
        BoardError: no such kind, or a URL of that kind that is wrong.
    """
    kind = re.match(r"[a-z]*", url)[0]  # type: ignore[index]
    if kind not in KINDS:
        known = ", ".join(EXAMPLES.values())
        raise BoardError(f"{url!r} is no board", "its first word names no kind of board", f"write it as one of {known}")
    return KINDS[kind](url, places)


def _local(url: str, places: Places) -> Board:
    if url != "local":
        raise wrong(url, "`local` takes nothing behind it", list(EXAMPLES))
    return Board(url, "local", (sys.executable,), str(places.here))


def _ssh(url: str, places: Places) -> Board:
    try:
        parts = urlsplit(url)
        port = parts.port or 22
    except ValueError as error:
        raise wrong(url, f"as an address it cannot be read: {error}", list(EXAMPLES)) from error
    given = _options(url, parts.query)
    host, user = parts.hostname or "", parts.username or ""
    if not HOST.fullmatch(host) or (user and not NAME.fullmatch(user)) or parts.password or parts.path not in ("", "/"):
        raise BoardError(f"{url!r} is no ssh board", "it is not ssh://user@host[:port][/?python=PATH]", EXAMPLES["ssh"])
    options = [*SSH_OPTIONS, "-o", f"UserKnownHostsFile={_quoted(str(places.known_hosts))}"]
    options += ["-o", f"User={user}"] if user else []
    there = f"[{host}]" if ":" in host else host
    return Board(
        url=url,
        kind="ssh",
        python=(given.get("python", "python3"),),
        base=given.get("dir", "~/.cache/shrink-board"),
        reach=("ssh", "-T", *options, "-p", str(port), "--", host),
        copy=("scp", "-q", *options, "-P", str(port), "--"),
        copy_to=f"{there}:{{folder}}/",
        pip=f"ssh {'-p ' + str(port) + ' ' if port != 22 else ''}{user + '@' if user else ''}{host} "
        "{python} -m pip install --user",
        complaints=SSH_SAYS + NO_PYTHON,
        address=(host, port),
    )


SSH_OPTIONS = tuple(
    word
    for option in (
        "BatchMode=yes",
        "ConnectTimeout=10",
        "ServerAliveInterval=5",
        "ServerAliveCountMax=3",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        "ForwardAgent=no",
        "ClearAllForwardings=yes",
        "LogLevel=ERROR",
    )
    for word in ("-o", option)
)


def _adb(url: str, places: Places) -> Board:
    serial, _, query = url.removeprefix("adb:").partition("?")
    if not url.startswith("adb:") or not SERIAL.fullmatch(serial):
        raise BoardError(f"{url!r} is no adb board", "it is not adb:SERIAL", "see the serials with `adb devices`")
    given, adb = _options(url, query), ("adb", "-s", serial)
    base = given.get("dir", "/data/local/tmp/shrink-board")
    return Board(
        url=url,
        kind="adb",
        python=(given["python"],) if "python" in given else python_words(base),
        base=base,
        reach=(*adb, "shell", "-T"),
        copy=(*adb, "push"),
        copy_to="{folder}/",
        pip=f"adb -s {serial} shell {{python}} -m pip install",
        complaints=ADB_SAYS + (NO_PYTHON if "python" in given else NOT_SENT),
    )


def _qemu(url: str, places: Places) -> Board:
    return emulated(url, places)


KINDS: Mapping[str, Callable[[str, Places], Board]] = {"local": _local, "ssh": _ssh, "adb": _adb, "qemu": _qemu}
"""First word of the URL -> what makes the board of it."""


def _options(url: str, query: str) -> dict[str, str]:
    """What stands behind the question mark: "python", what starts it there, and "dir", a directory of shrink's own."""
    given = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    if not all(name in ("python", "dir") and PATH.fullmatch(value) for name, value in given.items()):
        raise BoardError(
            f"{url!r} has options that are not known", "only python=PATH and dir=/PATH are", EXAMPLES["ssh"]
        )
    if not given.get("dir", "/").startswith("/"):
        raise BoardError(f"{url!r} names no directory", "dir=PATH is not absolute", "begin it with /")
    return given


def _quoted(path: str) -> str:
    """As ssh reads a path in an option: a blank would begin a second file."""
    return f'"{path}"'
