"""A row is written whole or not at all, replaced alone, and found again."""

import json
from pathlib import Path

import pytest

from benchmarks import loop, rows
from benchmarks.facts import Conditions, Machine, code_hash
from benchmarks.loop import Again, Measured, run_rows
from benchmarks.rows import Failure, Row, Store, encode, write_whole

MACHINE = Machine(cpu="a cpu", cores=2, memory_gib=4.0, system="Linux x86_64")


def conditions(code: str = "abc") -> Conditions:
    return Conditions(commit="1234", dirty=False, code=code, machine=MACHINE, versions={"torch": "2"})


def row(name: str, **changes: object) -> Row:
    values = {
        "benchmark": "zoo", "name": name, "date": "2026-01-01T00:00:00+00:00", "conditions": conditions(),
        "settings": {"rounds": 50}, "seconds": 1.0, "peak_mib": 2.0, "others_busy": 0.0,
        "result": {"samples_ms": [1.0, 2.5]},
    }  # fmt: skip
    return Row(**{**values, **changes})  # type: ignore[arg-type]


def test_a_row_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    store, saved = Store("zoo", tmp_path), row("net", failure=Failure(what="a", why="b", fix="c"))
    store.save(saved)
    assert store.load("net") == saved
    assert store.all() == [saved]


def test_saving_a_row_again_leaves_the_others_alone(tmp_path: Path) -> None:
    store = Store("zoo", tmp_path)
    store.save(row("a"))
    before = store.path("a").read_bytes()
    store.save(row("b"))
    store.save(row("b", seconds=9.0))
    assert store.path("a").read_bytes() == before
    assert [(r.name, r.seconds) for r in store.all()] == [("a", 1.0), ("b", 9.0)]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "row.json"
    write_whole(path, b"old")

    def no_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows.os, "fsync", no_disk)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../evil", "", ".hidden", "a/b"])
def test_a_row_cannot_be_named_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        Store("zoo", tmp_path).path(name)


def test_numbers_share_a_line_and_stay_the_same() -> None:
    value = {"samples_ms": [1.25, -3e-05, 4.0], "names": ["a, 1", "b"], "text": "[1, 2]", "nested": [[1, 2], []]}
    text = encode(value).decode()
    assert json.loads(text) == value
    assert '"samples_ms": [1.25, ' in text


def test_a_run_that_was_ended_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.facts, "conditions", conditions)
    store, measured = Store("zoo", tmp_path), []
    settings = {name: {"rounds": 50} for name in "abc"}

    def measure(name: str) -> Measured:
        measured.append(name)
        if name == "b" and measured.count("b") == 1:
            raise KeyboardInterrupt
        return Measured({"n": 1})

    tasks = {name: lambda _, name=name: measure(name) for name in "abc"}  # type: ignore[misc]
    with pytest.raises(KeyboardInterrupt):
        run_rows(store, tasks, settings, Again())
    assert run_rows(store, tasks, settings, Again()) == 0
    assert measured == ["a", "b", "b", "c"]


def test_a_row_of_other_settings_or_other_sources_is_measured_again(tmp_path: Path) -> None:
    store = Store("zoo", tmp_path)
    store.save(row("a"))
    same = {"rounds": 50}
    assert store.is_current("a", conditions(), same, any_code=False)
    assert not store.is_current("a", conditions(), {"rounds": 60}, any_code=False)
    assert not store.is_current("a", conditions("new"), same, any_code=False)
    assert store.is_current("a", conditions("new"), same, any_code=True)


def test_the_hash_of_the_sources_sees_code_and_not_documents(tmp_path: Path) -> None:
    (tmp_path / "shrink").mkdir()
    (tmp_path / "shrink" / "a.py").write_text("x = 1")
    first = code_hash(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert code_hash(tmp_path) == first
    (tmp_path / "shrink" / "a.py").write_text("x = 2")
    assert code_hash(tmp_path) != first
