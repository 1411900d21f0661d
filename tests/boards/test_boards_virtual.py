"""The real ssh and scp against a computer of its own: another processor, another kernel, another C library's Python."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from needed import needs
from run_cli import run_cli
from test_boards_ssh import HOST_FIELDS
from virtual_board import VirtualBoard, booted, build

from shrink.bench import result
from shrink.boards.places import Places

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    for name in ("ssh", "emulator", "virtual board"):
        needs(name)
    work = tmp_path_factory.mktemp("board")
    kernel, files = build(work)
    with booted(kernel, files, work / "serial.log") as running:
        yield running
    shutil.rmtree(work)


def test_a_board_of_its_own_gives_the_result_of_this_machine(
    capfd: pytest.CaptureFixture[str],
    board: VirtualBoard,
    places: Places,
    bundles: dict[str, Path],
    photos: Path,
    tmp_path: Path,
) -> None:
    ran = run_cli(capfd, "board", "trust", board.url, "--fingerprint", board.fingerprint)
    assert ran.code == 0, ran.err
    found = {}
    for where in ("local", board.url):
        out = tmp_path / f"{where[:3]}.json"
        ran = run_cli(
            capfd, "bench", bundles["tflite-int8"], "--data", photos, "--repeats", 0, "--on", where, "--json", out
        )
        assert ran.code == 0, ran.err
        found[where[:3]] = msgspec.to_builtins(result.parse(out.read_bytes()))
    here, there = (_flat(one) for one in found.values())
    assert there.pop("place.emulated") == "the board is linux,dummy-virt"  # and so no time is shown
    differing = {key for key in here.keys() | there.keys() if here.get(key) != there.get(key)}
    assert not {key for key in differing if not key.startswith((*HOST_FIELDS, "facts.", "reasons"))}, differing
    assert here["candidate.outputs_sha256"] == there["candidate.outputs_sha256"]


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    found = {}
    for key, value in tree.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found
