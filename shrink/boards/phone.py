"""A Python of our own on a device that has none: sent once over adb, and started by its own loader.

It is the arm64 Python that `shrink board setup qemu` prepared, with the runtimes. Nothing is installed on the device:
all lies in shrink's directory there, and the C library that Android has is not touched.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from shrink.boards.board import Board
from shrink.boards.emulator import SETUP, read_manifest
from shrink.boards.places import Places
from shrink.errors import BoardError
from shrink.progress import Progress

MACHINE = "aarch64"
SYSTEM = ("lib/aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1", "usr/bin/python3.11", "usr/lib/aarch64-linux-gnu",
          "usr/lib/python3.11")  # fmt: skip
PACKAGES = "usr/lib/python3/dist-packages"  # where Debian's Python looks without being told
STAMP = "sent"  # a file that says which Python was unpacked, written last
STEPS = ("ask the device", "send Python")
WAIT_S = 20  # for an answer that needs no work
SEND_S = 1800  # 230 MB over a slow cable


def python_words(base: str) -> tuple[str, ...]:
    """The words that start it: the loader first, so that no path of the system is needed."""
    root = f"{base}/python"
    libraries = ":".join(f"{root}/{folder}/aarch64-linux-gnu" for folder in ("lib", "usr/lib"))
    loader = f"{root}/lib/ld-linux-aarch64.so.1"
    return (loader, "--library-path", libraries, f"{root}/usr/bin/python3.11", "-s", "-B")


def set_up(board: Board, places: Places, progress: Progress) -> int:
    """Send Python, unless it is there already; bytes sent.

    Raises:
        BoardError: nothing is prepared to be sent, the device is of another kind, or it cannot take it.
    """
    if read_manifest(places.emulator) is None:
        raise BoardError("there is no Python to send", f"nothing is in {places.emulator}", SETUP)
    files = dict(files_of(places.emulator))
    with progress.stage(STEPS[0]):
        _check_machine(board)
        there = _ask(board, f"cat {board.base}/python/{STAMP} || true").strip()
    if there == (wanted := fingerprint(files)):
        return 0
    with progress.stage(STEPS[1]), tempfile.TemporaryFile() as packed:
        pack(files, packed)
        _send(board, packed, wanted)
        _ask(board, " ".join(board.python) + " --version")
        return packed.seek(0, 2)


def fingerprint(files: Mapping[str, Path]) -> str:
    """Tells one preparation from another, without reading the files."""
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        found = file.stat()
        digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def pack(files: Mapping[str, Path], out: IO[bytes]) -> None:
    """Write them as a tar. Their times stay: by them Python knows that its byte code is up to date."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT, dereference=True) as tar:
        for name, file in sorted(files.items()):
            member = tar.gettarinfo(str(file), name)
            member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
            with file.open("rb") as content:
                tar.addfile(member, content)


def files_of(prepared: Path) -> Iterator[tuple[str, Path]]:
    """Name there -> file here; links are followed, for some file systems of devices know none."""
    root, site = prepared / "root", prepared / "site"
    for part in SYSTEM:
        found = [root / part] if (root / part).is_file() else sorted((root / part).rglob("*"))
        yield from ((file.relative_to(root).as_posix(), file) for file in found if file.is_file())
    for file in sorted(site.rglob("*")):
        if file.is_file():
            yield f"{PACKAGES}/{file.relative_to(site).as_posix()}", file


def _check_machine(board: Board) -> None:
    machine = _ask(board, "uname -m").strip()
    if machine != MACHINE:
        why = f"it is {machine[:40]!r}, and the Python that is sent is for {MACHINE}"
        raise BoardError(f"{board.url} cannot be set up", why, f"name a Python there: {board.url}?python=PATH")


def _ask(board: Board, command: str) -> str:
    """What a command there writes."""
    said = _run(board, command, None, WAIT_S)
    if said.returncode:
        raise board.explain(said.stderr.decode("utf-8", "replace"), said.returncode)
    return said.stdout.decode("utf-8", "replace")


def _send(board: Board, packed: IO[bytes], stamp: str) -> None:
    """Through the shell's standard input: the device never holds the tar beside what it unpacks."""
    packed.seek(0)
    root = f"{board.base}/python"
    words = (f"rm -rf {root}", f"mkdir -p {root}", f"tar -x -f - -C {root}", f"echo {stamp} > {root}/{STAMP}")
    said = _run(board, " && ".join(words), packed, SEND_S)
    if said.returncode:
        raise board.explain(said.stderr.decode("utf-8", "replace"), said.returncode)


def _run(board: Board, command: str, given: IO[bytes] | None, wait_s: float) -> subprocess.CompletedProcess[bytes]:
    """Run a command in the shell there."""
    tool = board.reach[0]
    try:
        return subprocess.run(
            [*board.reach, command], stdin=given or subprocess.DEVNULL, capture_output=True, timeout=wait_s, check=False
        )
    except OSError as error:
        why = f"{board.url} needs it: {error.strerror}"
        raise BoardError(f"{tool} cannot be started", why, f"install it: sudo apt install {tool}") from error
    except subprocess.TimeoutExpired as error:
        why = f"{command.split()[0]} did not end in {wait_s:.0f} s"
        raise BoardError(f"{board.url} does not answer", why, "connect it again; see `adb devices`") from error
