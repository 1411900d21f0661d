"""What all workers of a search have found, shared through a file or a database."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import optuna
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from shrink.errors import DataError, RequestError
from shrink.search import journal
from shrink.search.aim import aims, to_sketch
from shrink.search.goal import Figures
from shrink.search.points import Point
from shrink.search.result import Result, values
from shrink.search.trials import (
    Entry,
    Head,
    distributions,
    entries_of,
    params_of,
    point_of,
    sketch,
    sketches_of,
    unnamed,
)

NAME = "shrink"
RANDOM_FIRST = 8  # trials before the sampler learns from them
REPEATS = 20  # proposals of points that are known, before one that is not is drawn
DIRECTIONS = (StudyDirection.MINIMIZE,) * 3  # of `result.values`


OF: Mapping[str, str] = {
    "model": "model",
    "data": "data",
    "recipe": "recipe",
    "goal": "limits",
    "space": "targets, resolutions, epochs or most pruned",
}
"""Field of a head -> what it is called in an error."""


@dataclass(frozen=True, slots=True)
class Lease:
    """How workers know of each other: seconds between two signs of life, and of silence after which one is gone."""

    beat: float = 10.0
    stale: float = 60.0


class GivenUpError(Exception):
    """A point whose best case is farther from the goal than one that is finished."""


class Study:
    """A study of that head, opened or made.

    Args:
        place: a file, or the URL of a database.
        head: what it must be of.
        seed: what the sampler draws with, together with the number of trials.
        lease: the same for all workers.

    Raises:
        RequestError: the study is of another model, data or goal, or cannot be opened.
    """

    def __init__(self, place: str, head: Head, *, seed: int, lease: Lease | None = None) -> None:
        self.head, self.lease, self._seed = head, lease or Lease(), seed
        self._study = _opened(place, lambda storage: optuna.create_study(
            storage=storage, study_name=NAME, directions=DIRECTIONS, load_if_exists=True
        ))  # fmt: skip
        self._seen: dict[int, tuple[object, float]] = {}
        known = self._study.user_attrs
        if "head" not in known:
            self._study.set_user_attr("head", msgspec.to_builtins(head))
            for point in head.space.starts():
                self._study.enqueue_trial(params_of(point, head.space), skip_if_exists=True)
        _check_same(place, _head(self._study, place), head)

    def entries(self) -> list[Entry]:
        """All trials that began, but for proposals of points that were known."""
        return entries_of(self._study)

    def to_sketch(self) -> Point | None:
        """A point whose size and time should be known before the next trial; None while that is decided already."""
        if self._waiting():
            return None
        return to_sketch(self.head.goal, self.head.space, self.entries(), sketches_of(self._study))

    def sketched(self, point: Point, figures: Figures) -> None:
        """Write down its size and time; no figures: it cannot be made."""
        self._study.set_user_attr(*sketch(point, figures))

    def next(self) -> tuple[int, Point] | None:
        """A point that no worker has tried: aimed at, proposed, or drawn from those that are left; None if none is."""
        taken, known = self._taken(), (self.entries(), sketches_of(self._study))
        for point in () if self._waiting() else aims(self.head.goal, self.head.space, *known):
            if point not in taken:
                self._study.enqueue_trial(params_of(point, self.head.space), skip_if_exists=True)
        for _ in range(REPEATS):
            if proposed := self._propose():
                return proposed
        while left := self._left():
            self._study.enqueue_trial(params_of(left[self._seed % len(left)], self.head.space))
            if proposed := self._propose():
                return proposed
        return None

    def _waiting(self) -> bool:
        """Whether a trial is decided that no worker has begun."""
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _propose(self) -> tuple[int, Point] | None:
        """A trial and its point; None if a trial before it has the same.

        Another worker may have drawn that point in the same moment: the later trial gives way, and so waits until those
        before it have theirs (as in Lamport's bakery, 1974).
        """
        number, point = self._ask()
        while unnamed(self._study, before=number):
            time.sleep(self.lease.beat / 100)
            self.end_stale()
        if point not in self._taken(before=number):
            return number, point
        self._end(number, TrialState.FAIL, {"repeats": True})
        return None

    def _left(self) -> list[Point]:
        taken = self._taken()
        return [point for point in self.head.space.every() if point not in taken]

    def _taken(self, before: int | None = None) -> set[Point]:
        """Points that were tried or are being tried, by all trials or those before one."""
        tried = (entry for entry in self.entries() if entry.state not in ("waiting", "failed"))
        return {entry.point for entry in tried if before is None or entry.number < before}

    def done(self, number: int, result: Result, seconds: float) -> None:
        """Write down what a trial found."""
        trial = self._running(number)
        if trial is None:
            return
        for key, gap in self.head.goal.gaps(result.figures).items():
            trial.set_constraint(key, gap)
        trial.set_user_attr("result", msgspec.to_builtins(result))
        self._end(number, TrialState.COMPLETE, {"seconds": seconds}, values(result.figures))

    def given_up(self, number: int, figures: Figures, why: str, seconds: float) -> None:
        """Write down that a trial was stopped early, and how far it is from the goal in the best case."""
        trial = self._running(number)
        if trial is None:
            return
        for key, gap in self.head.goal.gaps(figures).items():
            trial.set_constraint(key, gap)
        self._end(number, TrialState.PRUNED, {"why": why, "seconds": seconds})

    def failed(self, number: int, why: str) -> None:
        """Write down that a trial came to nothing."""
        self._end(number, TrialState.FAIL, {"why": why})

    @contextmanager
    def alive(self, number: int) -> Iterator[None]:
        """Let the other workers know, again and again, that this one still works on a trial."""
        stop = threading.Event()

        def beat() -> None:
            count = 0
            while not stop.wait(self.lease.beat):
                count += 1
                try:
                    self._set(number, {"beat": count})
                except (optuna.exceptions.OptunaError, OSError):
                    return  # it was taken for dead; what it finds is not written down

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def end_stale(self, clock: Callable[[], float] = time.monotonic) -> list[int]:
        """End the trials of workers that were silent too long, by this process's own clock; which they were.

        Clocks of machines differ: what counts is how long a beat has not changed while this process looked.
        """
        now, ended = clock(), []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            beat = trial.user_attrs.get("beat")
            if trial.number not in self._seen or self._seen[trial.number][0] != beat:
                self._seen[trial.number] = (beat, now)
            elif now - self._seen[trial.number][1] > self.lease.stale:
                self.failed(trial.number, "its worker ended or fell silent")
                ended.append(trial.number)
        return ended

    def _ask(self) -> tuple[int, Point]:
        count = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = TPESampler(
            n_startup_trials=RANDOM_FIRST, multivariate=True, constant_liar=True, seed=self._seed + count
        )
        trial = self._study.ask(distributions(self.head.space))
        return trial.number, point_of(trial.params)

    def _running(self, number: int) -> optuna.Trial | None:
        """A trial that is still this worker's; None if another took this one for dead."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        return optuna.Trial(self._study, frozen._trial_id) if frozen.state == TrialState.RUNNING else None

    def _set(self, number: int, attributes: Mapping[str, Any]) -> None:
        if trial := self._running(number):
            for key, value in attributes.items():
                trial.set_user_attr(key, value)

    def _end(self, number: int, state: TrialState, attributes: Mapping[str, Any], values: Any = None) -> None:
        self._set(number, attributes)
        self._study.tell(number, values, state=state, skip_if_finished=True)


def read(place: str) -> tuple[Head, list[Entry], str]:
    """What a study holds, and a note if part of it cannot be read. Nothing is written.

    Raises:
        RequestError: there is no study, or nothing of it can be read.
    """
    if not _is_url(place):
        return _read_file(Path(place))
    study = _opened(place, lambda storage: optuna.load_study(study_name=NAME, storage=storage))
    return _head(study, place), entries_of(study), ""


def _read_file(path: Path) -> tuple[Head, list[Entry], str]:
    """A damaged journal is read up to its first bad line, from a copy."""
    import tempfile

    good, every = journal.whole_lines(path)
    lines = path.read_bytes().split(b"\n")[:good]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "study.journal"
        copy.write_bytes(b"".join(line + b"\n" for line in lines))
        study = _opened(str(copy), lambda storage: optuna.load_study(study_name=NAME, storage=storage), shown=str(path))
        note = f"line {good + 1} of {every} is damaged: what follows it was not read" if good < every else ""
        return _head(study, str(path)), entries_of(study), note


def _is_url(place: str) -> bool:
    return "://" in place


def _opened(place: str, make: Callable[[Any], optuna.Study], shown: str = "") -> optuna.Study:
    """Optuna's study; what a database or a file says against it becomes three lines, without its password."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    shown = shown or re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", place)
    try:
        return make(optuna.storages.RDBStorage(place) if _is_url(place) else journal.storage(Path(place)))
    except DataError:
        raise
    except ImportError as error:
        why = f"its driver is not installed: {error}"
        raise RequestError(f"the study {shown} cannot be opened", why, "pip install it, or give a file") from error
    except Exception as error:  # anything that a driver, SQLAlchemy or the replay of a journal raises
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".replace(place, shown)
        fix = "give the study of an earlier `shrink search`, or another place for a new one"
        raise DataError(f"the study {shown} cannot be read", why, fix) from error


def _head(study: optuna.Study, place: str) -> Head:
    try:
        return msgspec.convert(study.user_attrs["head"], type=Head)
    except (KeyError, msgspec.ValidationError) as error:
        why = f"it does not say what it is of: {error}"
        raise DataError(f"{place} is not a study of shrink", why, "give one that `shrink search` made") from error


def _check_same(place: str, theirs: Head, ours: Head) -> None:
    for field, words in OF.items():
        if getattr(theirs, field) != getattr(ours, field):
            raise RequestError(
                f"the study {place} is of another {words}",
                "what it has found says nothing about this search",
                "give the same as when it began, or another --study",
            )
