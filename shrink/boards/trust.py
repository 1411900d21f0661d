"""Host keys of ssh boards: fetched once, shown to the user, and kept in a file of shrink's own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shrink.boards.board import Board
from shrink.errors import BoardError
from shrink.files import write_whole

WAIT_S = 10
KEY_TYPES = ("ed25519", "ecdsa", "rsa")
"""Each is asked for alone: asked for together, ssh-keyscan gives up all when the server drops one connection,
as dropbear does when it is asked for a kind of key that it has not."""


@dataclass(frozen=True, slots=True)
class Offered:
    """The keys a host offers."""

    lines: tuple[str, ...]  # as known_hosts holds them
    fingerprints: tuple[str, ...]  # such as "SHA256:... (ED25519)"


def offered(board: Board, host: str, port: int) -> Offered:
    """Ask the host for its keys; nothing is sent but that question.

    Raises:
        BoardError: it cannot be reached, or offers none.
    """
    lines: tuple[str, ...] = ()
    for kind in KEY_TYPES:
        scanned = _run(["ssh-keyscan", "-T", str(WAIT_S), "-t", kind, "-p", str(port), "--", host])
        found = (line for line in scanned.stdout.splitlines() if re.fullmatch(r"\S+ (ssh|ecdsa)-\S+ \S+", line))
        lines += tuple(found)
        if "SSH-" not in scanned.stderr:  # nobody introduced itself: nobody will for the next kind
            break
    if not lines:
        said = scanned.stderr.strip() or "Connection refused: no ssh server offers a key there"
        raise board.explain(said, scanned.returncode)
    shown = _run(["ssh-keygen", "-l", "-f", "-"], "\n".join(lines) + "\n").stdout.splitlines()
    return Offered(lines, tuple(" ".join(line.split()[1::2]) for line in shown if len(line.split()) == 4))


def known(file: Path, host: str, port: int) -> tuple[str, ...]:
    """The lines that are trusted for that host so far."""
    return tuple(line for line in _lines(file) if line.split(" ")[0] == _name(host, port))


def keep(file: Path, host: str, port: int, lines: Sequence[str]) -> None:
    """Trust these keys of that host, and no others of it."""
    others = [line for line in _lines(file) if line.split(" ")[0] != _name(host, port)]
    mine = [f"{_name(host, port)} {line.split(' ', 1)[1]}" for line in lines]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(f"{line}\n" for line in (*others, *mine)).encode())


def _name(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=3 * WAIT_S, check=False)
    except OSError as error:
        why = f"ssh boards need it: {error.strerror}"
        raise BoardError(f"{command[0]} cannot be started", why, "sudo apt install openssh-client") from error
    except subprocess.TimeoutExpired as error:
        raise BoardError("the host does not answer", f"nothing came in {3 * WAIT_S} s", "check the address") from error
