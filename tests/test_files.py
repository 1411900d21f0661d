"""A directory appears whole or not at all, whenever the process is killed, and removes nothing of others."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shrink import files
from shrink.errors import OutputError
from shrink.files import appears_whole, check_free

NEW = {"report.json": "new", "tflite-int8/model": "new model"}
OLD = {"report.json": "old", "tflite-int8/model": "old model", "onnx-int8/model": "old model"}


def is_ours(path: Path) -> bool:
    return path.name in ("report.json", "tflite-int8", "onnx-int8")


def put(folder: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(out: Path, *, replace: bool = False) -> None:
    with appears_whole(out, replace=replace, is_ours=is_ours) as folder:
        put(folder, NEW)


def test_it_appears_with_all_its_content_and_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "out")
    assert content(tmp_path) == {f"a/b/out/{name}": text for name, text in NEW.items()}


def test_it_takes_the_place_of_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert content(tmp_path / "out") == NEW and names(tmp_path) == ["out"]


def test_it_is_not_there_before_the_block_ends(tmp_path: Path) -> None:
    with appears_whole(tmp_path / "out", replace=False, is_ours=is_ours) as folder:
        put(folder, NEW)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_nothing(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind), appears_whole(tmp_path / "out", replace=False, is_ours=is_ours) as folder:
        put(folder, NEW)
        raise kind
    assert names(tmp_path) == []


def test_a_full_disk_is_an_error_with_words(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"out cannot be written\n  why: .*No space left") as caught,
        appears_whole(tmp_path / "out", replace=False, is_ours=is_ours),
    ):
        raise OSError(28, "No space left on device")
    assert caught.value.exit_code == 2 and names(tmp_path) == []


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


# --- what is in the way


@pytest.mark.parametrize("exchange", [True, False])
def test_an_earlier_export_is_replaced_when_asked(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:  # a system that cannot swap two names
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    put(tmp_path / "out", OLD)
    write(tmp_path / "out", replace=True)
    assert content(tmp_path / "out") == NEW and names(tmp_path) == ["out"]


def test_what_a_link_points_to_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    put(tmp_path / "disk" / "real", OLD)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    write(tmp_path / "out", replace=True)
    assert (tmp_path / "out").is_symlink()
    assert content(tmp_path / "disk" / "real") == NEW and names(tmp_path / "disk") == ["real"]


@pytest.mark.parametrize(
    ("existing", "replace", "words"),
    [
        ({"out/report.json": ""}, False, "out exists\n  why: an export never mixes.*--force"),
        ({"out": ""}, False, "out is a file"),
        ({"out": ""}, True, "out is a file"),
        (
            {"out/report.json": "", "out/thesis.tex": ""},
            True,
            "out is not an earlier export\n  why: it holds 'thesis.tex'",
        ),
        ({"out/.git/HEAD": ""}, True, "why: it holds '.git', which no export wrote"),
    ],
)
def test_what_is_in_the_way_is_refused_and_kept(
    tmp_path: Path, existing: dict[str, str], replace: bool, words: str
) -> None:
    put(tmp_path, existing)
    for attempt in (
        lambda out: write(out, replace=replace),
        lambda out: check_free(out, replace=replace, is_ours=is_ours),
    ):
        with pytest.raises(OutputError, match=f"(?s){words}"):
            attempt(tmp_path / "out")
        assert content(tmp_path) == existing


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    put(tmp_path, {"notes": "text"})
    with pytest.raises(OutputError, match=r"cannot be made\n  why: .*notes is a file"):
        check_free(tmp_path / "notes" / "a" / "out", replace=False, is_ours=is_ours)


def test_a_place_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match=r"cannot be made\n  why: .* may not be written"):
        check_free(tmp_path / "a" / "out", replace=False, is_ours=is_ours)


# --- what others left


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    put(tmp_path, {".out.partial-0badcafe/tflite-int8/model": "half", ".other.partial-1": "not ours"})
    write(tmp_path / "out")
    assert names(tmp_path) == [".other.partial-1", "out"]


def test_what_a_living_run_is_writing_is_kept(tmp_path: Path) -> None:
    put(tmp_path, {".out.partial-0badcafe/model": "half"})
    descriptor = os.open(tmp_path / ".out.partial-0badcafe", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        write(tmp_path / "out")
    finally:
        os.close(descriptor)
    assert names(tmp_path) == [".out.partial-0badcafe", "out"]


def test_a_run_holds_the_lock_that_keeps_its_directory(tmp_path: Path) -> None:
    with appears_whole(tmp_path / "out", replace=False, is_ours=is_ours) as folder:
        put(folder, NEW)
        write(tmp_path / "out")
        assert content(folder) == NEW
        (tmp_path / "out").rename(tmp_path / "theirs")
    assert content(tmp_path / "out") == NEW


def test_content_that_was_on_its_way_out_comes_back(tmp_path: Path) -> None:
    """Where names cannot be swapped, a kill between the two renames must not lose the old content."""
    put(tmp_path / ".out.partial-0badcafe-old", OLD)
    with pytest.raises(OutputError, match="out exists"):
        write(tmp_path / "out")
    assert content(tmp_path / "out") == OLD and names(tmp_path) == ["out"]


# --- killed at every moment

KILLED = """
import os, signal, sys
from pathlib import Path
from shrink import files

count, swap, out = int(sys.argv[1]), sys.argv[2] == "swap", Path(sys.argv[3])

def kill(event, arguments):
    global count
    if event.partition(".")[0] in ("os", "open", "shutil", "ctypes", "fcntl"):
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)

if not swap:
    files._exchange = lambda a, b: False
sys.addaudithook(kill)
with files.appears_whole(out, replace=True, is_ours=lambda path: True) as folder:
    (folder / "tflite-int8").mkdir()
    (folder / "tflite-int8" / "model").write_text("new model")
    (folder / "report.json").write_text("new")
"""


def killed_at(moment: int, out: Path, swap: str) -> bool:
    """Whether the run ended before that moment came."""
    run = subprocess.run([sys.executable, "-c", KILLED, str(moment), swap, str(out)], check=False, timeout=60)
    assert run.returncode in (0, -9)
    return run.returncode == 0


@pytest.mark.parametrize("swap", ["swap", "no swap"])
def test_a_kill_at_any_operation_leaves_nothing_or_the_whole(tmp_path: Path, swap: str) -> None:
    """Every operation on files that Python announces to its audit hooks is a moment to be killed in."""
    for moment in range(1, 200):
        out = tmp_path / str(moment) / "out"
        ended = killed_at(moment, out, swap)
        assert content(out) == NEW if out.exists() else not ended
        write(out, replace=True)
        assert names(out.parent) == ["out"] and content(out) == NEW
        if ended:
            break
    assert 10 < moment < 199


@pytest.mark.parametrize("swap", ["swap", "no swap"])
def test_a_kill_at_any_operation_leaves_the_old_or_the_new(tmp_path: Path, swap: str) -> None:
    for moment in range(1, 200):
        out = put(tmp_path / str(moment) / "out", OLD)
        ended = killed_at(moment, out, swap)
        if swap == "swap":  # at no moment is there nothing
            assert content(out) in ([NEW] if ended else [OLD, NEW])
        with pytest.raises(OutputError, match="out exists"):  # and this brings the old one back where names cannot swap
            write(out)
        assert content(out) in ([NEW] if ended else [OLD, NEW])
        write(out, replace=True)
        assert names(out.parent) == ["out"] and content(out) == NEW
        if ended:
            break
    assert 10 < moment < 199
