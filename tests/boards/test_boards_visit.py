"""A visit to a board: nothing twice, nothing left, no waiting for the dead. The board is a program of this machine."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shrink.boards import visit
from shrink.boards.board import Board
from shrink.boards.kinds import board_of
from shrink.boards.packing import pack, runner_files
from shrink.boards.places import Places
from shrink.boards.visit import Visit
from shrink.errors import BoardError, LinkError


@pytest.fixture
def board(places: Places) -> Board:
    return board_of("local", places)


def send(board: Board, files: dict[str, Path]) -> tuple[int, int]:
    """(bytes sent, directories of dead runs removed)."""
    with Visit(board, files) as there:
        hello = there.hello()
        sent = there.send(hello)
        events = list(there.work(next(iter(files)), ["--help-is-no-bundle"]))
    assert events[-1].keys() <= {"failed", "problem"}  # there is no runner in the zip; what was sent stays
    return sent, hello.removed_runs


def runs(places: Places) -> list[Path]:
    return list((places.here / "runs").iterdir())


def settled(places: Places) -> list[Path]:
    """What is left of the runs once the board has had a moment to notice."""
    end = time.monotonic() + 10
    while runs(places) and time.monotonic() < end:
        time.sleep(0.05)
    return runs(places)


def test_the_same_files_give_the_same_zip(tmp_path: Path) -> None:
    content = {"a.txt": b"alpha", "b.txt": b"beta"}
    assert pack(content, tmp_path) == pack(dict(reversed(content.items())), tmp_path)
    assert "device_runner/probe/serve.py" in runner_files()


def test_nothing_is_sent_twice_and_only_what_changed(board: Board, places: Places, tmp_path: Path) -> None:
    first, other = pack({"a": b"alpha" * 1000}, tmp_path), pack({"b": b"beta"}, tmp_path)
    files = {first: tmp_path / first, other: tmp_path / other}
    assert send(board, files)[0] == sum(file.stat().st_size for file in files.values())
    assert send(board, files)[0] == 0
    third = pack({"b": b"gamma"}, tmp_path)
    assert send(board, {first: tmp_path / first, third: tmp_path / third})[0] == (tmp_path / third).stat().st_size
    assert settled(places) == []


def test_a_file_that_arrives_damaged_is_not_kept(board: Board, places: Places, tmp_path: Path) -> None:
    digest = pack({"a": b"alpha"}, tmp_path)
    (tmp_path / digest).write_bytes(b"something else")
    with Visit(board, {digest: tmp_path / digest}) as there:
        there.send(there.hello())
        (event,) = there.work(digest, [])
    assert event["failed"] == ["ValueError", f"a file arrived damaged: {digest}"]
    assert not (places.here / "store" / digest).exists()


def test_what_a_dead_run_left_goes_at_the_next_contact_but_not_a_living_one(
    board: Board, places: Places, tmp_path: Path
) -> None:
    dead, alive = places.here / "runs" / "dead", places.here / "runs" / "alive"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        (folder / "litter").write_bytes(b"x")
    handle = os.open(alive, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    digest = pack({"a": b"alpha"}, tmp_path)
    assert send(board, {digest: tmp_path / digest})[1] == 1
    os.close(handle)
    assert settled(places) == [alive] or not dead.exists()
    assert alive.exists() and not dead.exists()


def test_a_host_that_dies_leaves_nothing(board: Board, places: Places, tmp_path: Path) -> None:
    """The program there sees its standard input end."""
    digest = pack({"a": b"alpha"}, tmp_path)
    with Visit(board, {digest: tmp_path / digest}) as there:
        there.hello()
        assert len(runs(places)) == 1
    assert settled(places) == []


def test_a_board_killed_outright_is_an_end_and_its_litter_goes_next_time(
    board: Board, places: Places, tmp_path: Path
) -> None:
    digest = pack({"a": b"alpha"}, tmp_path)
    files = {digest: tmp_path / digest}
    with Visit(board, files) as there:
        there.hello()
        os.kill(there._process.pid, signal.SIGKILL)
        with pytest.raises(LinkError, match="the link to local was lost"):
            list(there.work(digest, []))
    assert len(runs(places)) == 1
    assert send(board, files)[1] == 1


def test_a_board_that_falls_silent_is_not_waited_for(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "SILENCE_S", 1.0)
    with Visit(replace(board, python=(sys.executable, "-c", "import time; time.sleep(60)")), {}) as there:
        start = time.monotonic()
        with pytest.raises(LinkError, match="fell silent"):
            there.hello()
    assert time.monotonic() - start < 30


def test_what_the_board_prints_beside_its_lines_is_not_taken_for_one(board: Board) -> None:
    chatter = "print('welcome'); print('[1, 2]'); print('{\"no\": 1}')"
    with (
        Visit(replace(board, python=(sys.executable, "-c", chatter)), {}) as there,
        pytest.raises(BoardError, match="cannot be used"),
    ):
        there.hello()


def test_too_little_room_is_said_before_anything_is_sent(board: Board, tmp_path: Path) -> None:
    digest = pack({"a": b"alpha"}, tmp_path)
    with Visit(board, {digest: tmp_path / digest}) as there:
        hello = replace(there.hello(), free_bytes=5_000_000)
        with pytest.raises(BoardError, match="too little room") as caught:
            there.send(hello)
    assert caught.value.why == "4 MB are free there, and 32 MB are needed"


def test_a_tool_that_is_not_installed_is_named(board: Board) -> None:
    with (
        pytest.raises(BoardError, match="no-such-tool cannot be started"),
        Visit(replace(board, python=("no-such-tool",)), {}),
    ):
        pass
