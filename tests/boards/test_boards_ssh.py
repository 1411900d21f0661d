"""Boards over ssh: the real ssh, scp, ssh-keyscan and ssh-keygen, against a real server on the loopback."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from needed import needs
from run_cli import Ran, run_cli
from ssh_board import LOG, SshBoard, served

from shrink.bench import result
from shrink.boards.places import Places

HOST_FIELDS = (
    "place",
    "command",
    "moments",
    "candidate.memory_mb",
    "candidate.peak_mb",
    "candidate.load_ms",
    "candidate.first_ms",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshBoard]:
    needs("ssh")
    with served(tmp_path / "home") as board:
        yield board


@pytest.fixture
def shrink(capfd: pytest.CaptureFixture[str], places: Places) -> Callable[..., Ran]:
    """`shrink WORDS`."""
    return lambda *words: run_cli(capfd, *words)


def trust(shrink: Callable[..., Ran], server: SshBoard) -> None:
    assert shrink("board", "trust", server.url, "--fingerprint", server.fingerprint).code == 0


def url(server: SshBoard) -> str:
    """With the Python of the tests, which has all that is needed."""
    return f"{server.url}/?python={sys.executable}"


def no_runs(server: SshBoard) -> bool:
    """Whether nothing is left, once the board has had a moment to notice."""
    end = time.monotonic() + 25
    while server.runs and time.monotonic() < end:
        time.sleep(0.1)
    return server.runs == []


def test_over_ssh_the_result_is_the_local_one_but_for_the_host(
    shrink: Callable[..., Ran], server: SshBoard, bundles: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    trust(shrink, server)
    found = {}
    for where in ("local", url(server)):
        out = tmp_path / f"{where[:3]}.json"
        ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--repeats", 0, "--on", where, "--json", out)
        assert ran.code == 0, ran.err
        found[where[:3]] = msgspec.to_builtins(result.parse(out.read_bytes()))
    for one in found.values():
        for name in HOST_FIELDS:
            part, _, field = name.partition(".")
            (one[part] if field else one).pop(field or part)
    assert found["loc"] == found["ssh"]
    assert no_runs(server)


def test_a_second_run_sends_nothing_again(
    shrink: Callable[..., Ran], server: SshBoard, bundles: dict[str, Path], photos: Path
) -> None:
    trust(shrink, server)
    words = ("bench", bundles["tflite-int8"], "--data", photos, "--repeats", 0, "--on", url(server))
    assert shrink(*words).code == 0
    copies = [command for command in server.commands if "contact" not in command]
    (server.folder / LOG).unlink()
    assert shrink(*words).code == 0
    assert len(server.commands) == 1 and "contact" in server.commands[0], copies


def test_a_board_that_nobody_trusted_is_refused(
    shrink: Callable[..., Ran], server: SshBoard, bundles: dict[str, Path], photos: Path
) -> None:
    ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", url(server))
    assert ran.code == 2
    assert ran.problem[1] == "its host key is not known" and ran.problem[2].startswith("shrink board trust ssh://")
    assert server.commands == []


def test_a_changed_host_key_is_refused_and_nothing_is_sent(
    shrink: Callable[..., Ran], server: SshBoard, bundles: dict[str, Path], photos: Path, places: Places
) -> None:
    trust(shrink, server)
    other = "AAAAC3NzaC1lZDI1NTE5AAAAIPFVkOYz3hpBYNTdVe8NfGJkUIHBsTMCyUPcGDLmCGfe"
    name = places.known_hosts.read_text().split()[0]
    places.known_hosts.write_text(f"{name} ssh-ed25519 {other}\n")
    ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", url(server))
    assert ran.code == 2 and "its host key is not the one that was trusted" in ran.problem[1]
    assert server.commands == [] and server.runs == []


def test_trust_asks_shows_the_fingerprint_and_takes_no_for_an_answer(
    shrink: Callable[..., Ran], server: SshBoard, places: Places
) -> None:
    ran = shrink("board", "trust", server.url, "--fingerprint", "SHA256:another")
    assert ran.code == 2 and "it does not offer SHA256:another" in ran.problem[1]
    assert server.fingerprint in ran.err and not places.known_hosts.exists()


def test_a_refused_key_says_so(
    shrink: Callable[..., Ran], bundles: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    needs("ssh")
    with served(tmp_path / "home", "--deny") as server:
        trust(shrink, server)
        ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", url(server))
    assert ran.code == 2 and ran.problem[1] == "it takes none of this user's keys"


def test_no_python_there_says_how_to_name_one(
    shrink: Callable[..., Ran], server: SshBoard, bundles: dict[str, Path], photos: Path
) -> None:
    trust(shrink, server)
    where = f"{server.url}/?python=/opt/none/python3"
    ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", where)
    assert ran.code == 2 and "there is no Python" in ran.problem[1] and "?python=" in ran.problem[2]


def test_a_missing_runtime_names_the_one_command(
    shrink: Callable[..., Ran], server: SshBoard, bundles: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    trust(shrink, server)
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
    bare.chmod(0o755)
    ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", f"{server.url}/?python={bare}")
    assert ran.code == 2
    assert "its Python has no numpy, no pillow, no msgspec, no ai-edge-litert" in ran.problem[1]
    assert ran.problem[2].endswith(f"{bare} -m pip install --user numpy pillow msgspec ai-edge-litert")
    assert no_runs(server)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("no-such-host.invalid", "no such host is known to this network"),
        ("127.0.0.1:9", "no ssh server answers at that port"),
    ],
)
def test_a_host_that_is_not_there_says_why(
    shrink: Callable[..., Ran], bundles: dict[str, Path], photos: Path, host: str, why: str
) -> None:
    needs("ssh")
    ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", f"ssh://pi@{host}")
    assert ran.code == 2
    assert ran.problem[1] == why


def test_a_connection_cut_in_the_middle_leaves_an_invalid_result_and_nothing_there(
    shrink: Callable[..., Ran], server: SshBoard, bundles: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    trust(shrink, server)
    out = tmp_path / "cut.json"

    def cut_when_it_works() -> None:
        end = time.monotonic() + 60
        while not server.runs and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1.5)
        server.cut()

    cutter = threading.Thread(target=cut_when_it_works)
    cutter.start()
    start = time.monotonic()
    words = ("--data", photos, "--on", url(server), "--seconds", 60, "--json", out)
    ran = shrink("bench", bundles["tflite-int8"], *words)
    cutter.join()
    assert ran.code == 1, ran.err
    assert time.monotonic() - start < 90
    broken = result.parse(out.read_bytes())
    assert not broken.complete and broken.candidate is None and "was lost" in (broken.problem or "")
    assert no_runs(server)
