"""Links to boards cut in the middle: does `shrink bench` end, and is the board clean afterwards?

A link is cut at moments spread evenly over a whole visit: while the board greets, while files are sent, while it
answers images, while it is timed. It is cut in two ways: the server dies, or it freezes, so that nothing closes and
nothing comes. The clients are the system's ssh and adb, the servers those of the tests, on the loopback. Clean means:
no directory of a run, and no process of it.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adb_board import adb_server, connected
from ssh_board import served

from benchmarks.loop import Measured
from benchmarks.rows import Failure
from shrink.boards import trust
from shrink.boards.board import Board
from shrink.boards.kinds import board_of
from shrink.boards.places import Places
from shrink.errors import Problem
from shrink.progress import Quiet
from shrink.steps import benching

CUTS = 20
TARGET = "tflite-int8"
MOST_S = 30.0  # until the command ends; and until the board is clean
TIMED_S = 3.0  # of timing in each visit
HOW = ("killed", "frozen")
COMPLETE, EARLIER = "complete", 0.7


@dataclass(frozen=True, slots=True)
class Link:
    """A board behind a server that can be cut."""

    board: Board
    folder: Path  # in which all paths of the board lie
    runs: Callable[[], list[Path]]
    server: int  # its process


def measure(run: Path, scale: float, scratch: Path) -> Measured:
    """All cuts, over ssh and adb in turns; a hang or litter breaks the promise."""
    asked = benching.Request(bundle=run / TARGET, images=20, seconds=TIMED_S, samples=100)
    cuts, numbers = max(round(CUTS * scale), 4), itertools.count()
    with clean_places(scratch) as places:
        lasts = {kind: whole_visit(kind, asked, scratch / f"{kind}-whole", places) for kind in LINKS}
        rows = []
        for number in range(cuts):
            kind, how = list(LINKS)[number % 2], HOW[number // 2 % 2]
            at: float = lasts[kind] * (number + 0.5) / cuts
            row: dict[str, Any] = {"outcome": COMPLETE}
            while row["outcome"] == COMPLETE:  # it was done before the cut: earlier, then
                row = one_cut(kind, how, at, asked, scratch / f"cut-{next(numbers)}", places)
                at *= EARLIER
            rows.append(row)
    broken = [row for row in rows if row["ended_s"] > MOST_S or row["clean_s"] > MOST_S or row["left"]]
    failure = Failure(what="a cut link is not survived", why=f"{len(broken)} of {cuts}", fix="see the row")
    return Measured(result={"whole_visit_s": lasts, "cuts": rows}, failure=failure if broken else None)


@contextmanager
def clean_places(scratch: Path) -> Iterator[Places]:
    """An adb server and known hosts of our own."""
    before = dict(os.environ)
    with adb_server(scratch / "adb") as variables:
        os.environ.update(variables)
        try:
            yield Places(scratch / "cache", scratch / "config")
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def ssh_link(folder: Path, places: Places) -> Iterator[Link]:
    """A board that is trusted."""
    with served(folder) as there:
        board = board_of(f"{there.url}/?python={sys.executable}", places)
        assert board.address
        trust.keep(places.known_hosts, *board.address, trust.offered(board, *board.address).lines)
        yield Link(board, folder, lambda: there.runs, there.process.pid)


@contextmanager
def adb_link(folder: Path, places: Places) -> Iterator[Link]:
    """A device with this Python."""
    with connected(folder, dict(os.environ)) as there:
        yield Link(board_of(f"{there.url}&python={sys.executable}", places), folder, lambda: there.runs,
                   there.process.pid)  # fmt: skip


LINKS = {"ssh": ssh_link, "adb": adb_link}


def whole_visit(kind: str, asked: benching.Request, folder: Path, places: Places) -> float:
    """Seconds of a visit that nothing cuts."""
    with LINKS[kind](folder, places) as link:
        start = time.monotonic()
        assert benching.bench(asked, link.board, command=(), progress=Quiet()).complete
        return round(time.monotonic() - start, 2)


def one_cut(kind: str, how: str, at_s: float, asked: benching.Request, folder: Path, places: Places) -> dict[str, Any]:
    """Cut so many seconds after the start; the seconds from there until the command ended and the board was clean."""
    cut_at: list[float] = []
    with ExitStack() as stack:
        link = stack.enter_context(LINKS[kind](folder, places))
        timer = threading.Timer(at_s, cut, [link, how, cut_at])
        timer.start()
        ended_as = outcome(asked, link.board)
        ended = time.monotonic()
        timer.join()
        end = cut_at[0] + MOST_S + 5
        while (link.runs() or processes(link)) and time.monotonic() < end:
            time.sleep(0.1)
        left = len(link.runs()) + len(processes(link))
        clean = time.monotonic()
    return {"link": kind, "how": how, "at_s": round(at_s, 2), "outcome": ended_as, "left": left,
            "ended_s": round(max(ended - cut_at[0], 0.0), 2), "clean_s": round(clean - cut_at[0], 2)}  # fmt: skip


def outcome(asked: benching.Request, board: Board) -> str:
    """How the command ends: its problem, or that it was done before."""
    try:
        found = benching.bench(asked, board, command=(), progress=Quiet())
    except Problem as problem:
        return problem.why.replace(board.url, board.kind)
    return COMPLETE if found.complete else (found.problem or "").replace(board.url, board.kind)


def cut(link: Link, how: str, cut_at: list[float]) -> None:
    """Now."""
    os.kill(link.server, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    cut_at.append(time.monotonic())


def processes(link: Link) -> list[str]:
    """Programs of visits that still run on the board: its directory is in their files or their environment."""
    said = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    mine = [line for line in said.splitlines() if sys.executable in line and "contact" in line and " -c " in line]
    return [line for line in mine if belongs(int(line.split()[0]), link.folder)]


def belongs(pid: int, folder: Path) -> bool:
    """Whether a process has the board's home or an open directory below it."""
    try:
        files = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return False
    return f"HOME={folder}" in environment or any(file.startswith(f"{folder}/") for file in files)
