"""One study, many workers: what is finished stays, whatever becomes of the workers."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import small_worker
from optuna.trial import TrialState
from small_worker import HEAD, LEASE, result, sketch

from shrink.errors import DataError, LoweringError, RequestError
from shrink.progress import Quiet
from shrink.search import journal
from shrink.search.front import table
from shrink.search.goal import Figures, Goal, Look
from shrink.search.points import Point, Space
from shrink.search.study import Lease, Study, read
from shrink.search.trials import Entry
from shrink.search.work import Budget, work

TRIALS = 40
SECONDS = 60  # a process that takes longer hangs


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes that start at once: Optuna is imported before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shrink.search.work"])
    yield context


def finished(place: Path) -> dict[int, tuple[int, int]]:
    """Trial -> what it found."""
    _, entries, note = read(str(place))
    assert note == ""
    return {e.number: (e.result.files[0].size_bytes, e.result.files[0].lost) for e in entries if e.result}


def logged(log: Path) -> dict[int, tuple[int, int]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return {int(number): (int(size), int(lost)) for number, size, lost in map(str.split, lines)}


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_20_kills_lose_no_trial_but_the_one_that_ran(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    place, log, rng = tmp_path / "study.journal", tmp_path / "log", random.Random(0)
    for kills in range(1, 21):
        worker = processes.Process(target=small_worker.main, args=(str(place), str(log), 10_000, 0.005))
        known = len(logged(log))
        worker.start()
        wait_until(lambda known=known: len(logged(log)) > known)
        time.sleep(rng.uniform(0.0, 0.1))
        worker.kill()
        worker.join(SECONDS)
        assert logged(log).items() <= finished(place).items()
        assert sum(entry.state == "running" for entry in read(str(place))[1]) <= kills
    _, before, _ = read(str(place))
    small_worker.main(str(place), str(log), sum(e.state in ("done", "given up") for e in before) + 5, 0.3)
    _, after, _ = read(str(place))
    assert not [entry for entry in after if entry.state == "running"]  # the stale ones were ended
    assert {entry.number for entry in before if entry.state == "done"} <= set(finished(place))


def test_two_workers_share_the_trials_and_never_a_point(
    processes: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    place, log = tmp_path / "study.journal", tmp_path / "log"
    workers = [processes.Process(target=small_worker.main, args=(str(place), str(log), TRIALS, 0.02)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(SECONDS)
        assert worker.exitcode == 0
    _, entries, _ = read(str(place))
    ended = [entry for entry in entries if entry.state in ("done", "given up")]
    assert TRIALS <= len(ended) <= TRIALS + 1
    points = [entry.point for entry in ended]
    assert len(set(points)) == len(points)


def test_the_same_study_goes_on_and_has_its_winner(tmp_path: Path) -> None:
    place, log = str(tmp_path / "study.journal"), str(tmp_path / "log")
    for trials in (10, TRIALS):
        small_worker.main(place, log, trials, 0.0)
    head, entries, _ = read(place)
    assert sum(entry.state in ("done", "given up") for entry in entries) == TRIALS
    kept = [e.result.figures for e in entries if e.result and head.goal.gap(e.result.figures) <= 0]
    assert kept and all(f.size_mb <= 0.6 and f.drop <= 1.0 for f in kept)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("field", "other", "words"),
    [
        ("model", "another", "is of another model"),
        ("data", "another", "is of another data"),
        ("goal", Goal(max_drop=2.0), "is of another limits"),
    ],
)
def test_a_study_of_something_else_is_refused(tmp_path: Path, field: str, other: object, words: str) -> None:
    place = str(tmp_path / "study.journal")
    Study(place, HEAD, seed=0)
    with pytest.raises(RequestError, match=words):
        Study(place, msgspec.structs.replace(HEAD, **{field: other}), seed=0)


def test_half_a_line_of_a_killed_writer_is_cut_off_by_the_next(tmp_path: Path) -> None:
    place = tmp_path / "study.journal"
    small_worker.main(str(place), str(tmp_path / "log"), 5, 0.0)
    before = finished(place)
    with place.open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"x","trial_')
    assert finished(place) == before
    small_worker.main(str(place), str(tmp_path / "log"), 8, 0.0)
    assert before.items() <= finished(place).items()
    assert all(json.loads(line) for line in place.read_text().splitlines())


@pytest.mark.parametrize(
    "content", [b"", b"half", b"one\ntwo\nthr", b"one\n" + b"x" * 200_000, b"x" * 70_000 + b"\nyy"]
)
def test_what_is_cut_off_is_what_follows_the_last_line_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    journal.drop_half_line(path)
    assert path.read_bytes() == content[: content.rfind(b"\n") + 1]


def test_a_damaged_journal_is_read_up_to_the_damage_and_not_written_to(tmp_path: Path) -> None:
    place = tmp_path / "study.journal"
    small_worker.main(str(place), str(tmp_path / "log"), 12, 0.0)
    lines = place.read_bytes().split(b"\n")
    lines[-20] = lines[-20][:10] + b"\0\0\0" + lines[-20][13:]
    place.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match="is damaged") as refused:
        Study(str(place), HEAD, seed=0)
    assert f"head -n {len(lines) - 20} " in str(refused.value)
    _, entries, note = read(str(place))
    assert f"line {len(lines) - 19} of {len(lines) - 1} is damaged" in note
    assert 0 < sum(entry.result is not None for entry in entries) < 12
    place.with_name("repaired").write_bytes(b"".join(line + b"\n" for line in lines[: len(lines) - 20]))
    assert Study(str(place.with_name("repaired")), HEAD, seed=0).entries()


@pytest.mark.parametrize("content", [b"not a study\n", b"", b'{"op_code": 99, "worker_id": "w"}\n', b"\xff\xfe\n"])
def test_what_is_no_study_is_said_in_three_lines(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "study.journal"
    place.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read(str(place))
    assert all((refused.value.what, refused.value.why, refused.value.fix))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"lost":', '"lots":'),
        ('"won":', '"won":-1'),
        ('"size_bytes":', '"size_bytes":-'),
        ('"targets":"', '"targets":"\\u001b[2J'),
        ('"size_mb":', '"size_bm":'),
    ],
)
def test_a_trial_that_was_tampered_with_is_noticed_or_shown_as_text(tmp_path: Path, old: str, new: str) -> None:
    place = tmp_path / "study.journal"
    small_worker.main(str(place), str(tmp_path / "log"), 3, 0.0)
    text = place.read_text()
    assert old in text
    place.write_text(text.replace(old, new))
    try:
        head, entries, note = read(str(place))
    except DataError as refused:
        assert all((refused.what, refused.why, refused.fix))
    else:
        assert all(line.isprintable() for line in table(head, entries, note))


def test_a_password_is_not_shown() -> None:
    with pytest.raises(RequestError) as refused:
        read("postgresql://me:secret@nowhere.invalid/db")
    assert "secret" not in str(refused.value)


def test_a_database_is_a_study_too(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/study.db"
    small_worker.main(place, str(tmp_path / "log"), 4, 0.0)
    assert sum(entry.result is not None for entry in read(place)[1]) >= 1


def test_silence_ends_a_trial_and_a_beat_keeps_it(tmp_path: Path) -> None:
    study = Study(str(tmp_path / "study.journal"), HEAD, seed=0, lease=LEASE)
    other = Study(str(tmp_path / "study.journal"), HEAD, seed=0, lease=LEASE)
    proposed = other.next()
    assert proposed is not None
    number = proposed[0]
    assert study.end_stale(lambda: 0.0) == []  # seen for the first time
    with other.alive(number):
        wait_until(lambda: "beat" in study._study.get_trials()[number].user_attrs)
    assert study.end_stale(lambda: 1.0) == []  # it has made a sign since
    assert study.end_stale(lambda: 1.4) == []
    assert study.end_stale(lambda: 1.6) == [number]
    other.done(number, result(Point(prune=1.0, resolution=20, targets="a")), 1.0)  # too late: it is not written down
    assert [entry.state for entry in study.entries() if entry.number == number] == ["failed"]


def test_a_proposal_waits_for_the_one_before_it_until_its_worker_is_gone(tmp_path: Path) -> None:
    study = Study(str(tmp_path / "study.journal"), HEAD, seed=0, lease=LEASE)
    killed = study._study.ask()  # within its proposal: it has no point yet
    start = time.monotonic()
    proposed = study.next()
    assert time.monotonic() - start > LEASE.stale
    assert proposed is not None and proposed[0] > killed.number
    assert study._study.trials[killed.number].state == TrialState.FAIL


@pytest.mark.parametrize("reads", [1, 2, 3, 4])
def test_who_waits_for_a_trial_that_ends_at_any_moment_goes_home(tmp_path: Path, reads: int) -> None:
    """The other worker's trial ends right after this one's first, second, ... look at the study."""
    study, other = (Study(str(tmp_path / "study.journal"), HEAD, seed=0, lease=Lease(beat=0.05)) for _ in range(2))
    proposed = other.next()
    assert proposed is not None
    look, looks = study.entries, itertools.count(1)

    def entries() -> list[Entry]:
        seen = look()
        if next(looks) == reads:
            other.done(proposed[0], result(proposed[1]), 1.0)
        return seen

    study.entries = entries  # type: ignore[method-assign]
    told: list[str] = []
    arguments = (study, lambda *_: pytest.fail("none is left to try"), sketch, Budget(1), Quiet(), told.append)
    worker = threading.Thread(target=work, args=arguments, daemon=True)
    worker.start()
    worker.join(5)
    assert not worker.is_alive()
    assert not [line for line in told if "waiting for 0" in line]


def test_a_small_space_is_tried_out_and_no_point_twice(tmp_path: Path) -> None:
    space = Space(most_pruned=1.2, resolutions=(20,), targets=("a",), own=20, epochs=(1, 2))
    study = Study(str(tmp_path / "study.journal"), msgspec.structs.replace(HEAD, space=space), seed=0)
    told: list[str] = []
    work(study, lambda point, look, stage: result(point), sketch, Budget(100), Quiet(), told.append)
    points = [entry.point for entry in study.entries() if entry.state in ("done", "given up")]
    assert len(points) == len(set(points)) == 9  # whole, and four factors with one or two epochs
    assert told[-1] == "every point was tried"


def test_a_point_that_cannot_come_nearer_is_given_up(tmp_path: Path) -> None:
    """Nothing is given up before a point is finished; then what is farther from the goal in its best case is."""
    study = Study(str(tmp_path / "study.journal"), HEAD, seed=0)
    best_cases = iter((9.0, 9.0, 0.5))

    def make(point: Point, look: Look, stage: object) -> object:
        look("weighed", Figures(size_mb=next(best_cases)))
        return result(point)

    work(study, make, sketch, Budget(3), Quiet(), lambda line: None)  # type: ignore[arg-type]
    assert [(e.state, e.why) for e in study.entries() if e.state != "waiting"] == [
        ("done", ""),
        ("given up", "weighed"),
        ("done", ""),
    ]


def test_what_cannot_be_made_in_one_precision_is_given_up_and_in_none_is_an_error(tmp_path: Path) -> None:
    def make(point: Point, look: Look, stage: object) -> object:
        if point.targets in refused:
            raise LoweringError(f"no op for {point.targets}", "it has none", "take another")
        return result(point)

    study, refused = Study(str(tmp_path / "some.journal"), HEAD, seed=0), {"a", "b"}
    work(study, make, sketch, Budget(6), Quiet(), lambda line: None)  # type: ignore[arg-type]
    found = {(e.point.targets, e.state) for e in study.entries()}
    assert found == {("a", "given up"), ("b", "given up"), ("c", "done")}
    points = [e.point for e in study.entries()]
    assert len(points) == len(set(points)) == 6
    study, refused = Study(str(tmp_path / "none.journal"), HEAD, seed=0), {"a", "b", "c"}
    with pytest.raises(LoweringError, match="no op for c"):
        work(study, make, sketch, Budget(6), Quiet(), lambda line: None)  # type: ignore[arg-type]


def test_an_interrupt_is_written_down_and_goes_on(tmp_path: Path) -> None:
    study = Study(str(tmp_path / "study.journal"), HEAD, seed=0)

    def interrupted(point: Point, look: Look, stage: object) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(study, interrupted, sketch, Budget(3), Quiet(), lambda line: None)  # type: ignore[arg-type]
    (entry,) = (e for e in study.entries() if e.state != "waiting")
    assert (entry.state, entry.why) == ("failed", "interrupted: KeyboardInterrupt")
