"""Shows how far a pipeline is: a live bar on a terminal, plain lines in a log, nothing for a library.

    progress (Protocol)
    ├── Quiet     shows nothing
    ├── Lines     [3/7] quantize ... 4.2 s       and a line every 5 s of a long loop
    └── Bars      the same, with a live bar and the time left while a stage runs

Showing never changes a result: the items of a loop come through untouched and in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Live
from rich.text import Text

T = TypeVar("T")
Clock = Callable[[], float]  # seconds from any start

QUIET_SECONDS = 2.0
"""A loop shorter than this gets no line of its own."""

EVERY_SECONDS = 5.0
"""Seconds between two lines of one loop."""


class Stage(Protocol):
    """One step of the pipeline, while it runs."""

    def track(self, items: Iterable[T], *, total: int | None = None) -> Iterator[T]:
        """The items, one by one, counted as they are done. `total`: how many, when they do not say."""
        ...


class Progress(Protocol):
    """Where the pipeline tells what it is doing."""

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """Show `name` until the block ends, then how long it took."""
        ...


def progress_on(stream: TextIO, *, stages: int | None, clock: Clock = time.monotonic) -> Progress:
    """Bars when `stream` is a terminal, else lines. `stages`: how many there will be; None: nobody knows."""
    return Bars(stream, stages=stages, clock=clock) if stream.isatty() else Lines(stream, stages=stages, clock=clock)


class Quiet:
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        yield _QuietStage()


class _QuietStage:
    def track(self, items: Iterable[T], *, total: int | None = None) -> Iterator[T]:
        yield from items


class Lines:
    """Plain lines, for a log or a pipe."""

    def __init__(self, stream: TextIO, *, stages: int | None, clock: Clock = time.monotonic) -> None:
        self._stream, self._stages, self._clock = stream, stages, clock
        self._number = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        self._number += 1
        stage = _LinesStage(self._stream, f"{_numbered(name, self._number, self._stages)} ...", self._clock)
        start = self._clock()
        try:
            yield stage
        except BaseException:
            stage.end(f"failed after {duration(self._clock() - start)}")
            raise
        stage.end(duration(self._clock() - start))


class _LinesStage:
    """The title is written first and without a line end, so that a long step shows at once."""

    def __init__(self, stream: TextIO, title: str, clock: Clock) -> None:
        self._stream, self._title, self._clock = stream, title, clock
        self._open = True  # the cursor stands behind the title
        self._write(title)

    def track(self, items: Iterable[T], *, total: int | None = None) -> Iterator[T]:
        count = _count(items, total)
        start = self._clock()
        due = start + QUIET_SECONDS
        for done, item in enumerate(items, start=1):
            yield item
            now = self._clock()
            if now >= due and done != count:
                due = now + EVERY_SECONDS
                self._line(how_far(done, count, now - start))

    def end(self, text: str) -> None:
        self._write(f" {text}\n" if self._open else f"{self._title} {text}\n")

    def _line(self, text: str) -> None:
        self._write(f"{chr(10) if self._open else ''}  {text}\n")
        self._open = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Bars:
    """A live bar under the finished lines, for a terminal."""

    def __init__(self, stream: TextIO, *, stages: int | None, clock: Clock = time.monotonic) -> None:
        self._console = Console(file=stream)
        self._stages, self._clock = stages, clock
        self._number = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        self._number += 1
        title = _numbered(name, self._number, self._stages)
        start, took = self._clock(), "failed after "
        try:
            with self._live() as live:
                yield _BarsStage(live, title)
            took = ""
        finally:
            took += duration(self._clock() - start)
            self._console.print(f"{title} ... {took}", markup=False, highlight=False)

    def _live(self) -> Live:
        """Leaves stdout and stderr alone: results go there, perhaps into a file."""
        columns = (
            SpinnerColumn("line"),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _Count(),
            TimeElapsedColumn(),
            _Left(),
        )
        return Live(
            *columns,
            console=self._console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
            get_time=self._clock,
        )


def _numbered(name: str, number: int, stages: int | None) -> str:
    return name if stages is None else f"[{number}/{stages}] {name}"


class _Count(MofNCompleteColumn):
    """How many of how many, where that is known."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Left(TimeRemainingColumn):
    """The time left, where it is known; said so, for the time passed stands beside it."""

    def render(self, task: Task) -> Text:
        seconds = task.time_remaining
        return Text() if seconds is None or task.finished else Text(f"{duration(seconds)} left")


class _BarsStage:
    def __init__(self, live: Live, title: str) -> None:
        self._live, self._title = live, title
        self._task = live.add_task(title, total=None)

    def track(self, items: Iterable[T], *, total: int | None = None) -> Iterator[T]:
        self._live.remove_task(self._task)  # a reset would keep the total of the loop before
        self._task = self._live.add_task(self._title, total=_count(items, total))
        for item in items:
            yield item
            self._live.advance(self._task)


def duration(seconds: float) -> str:
    """
    >>> duration(4.23), duration(75)
    ('4.2 s', '1 min 15 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def how_far(done: int, count: int | None, seconds: float) -> str:
    """
    >>> how_far(64, 256, 3.0)
    '25 % (64 of 256), about 9.0 s left'
    >>> how_far(64, None, 3.0)
    '64 done'
    """
    if count is None or done > count:
        return f"{done} done"
    left = seconds / done * (count - done)
    return f"{100 * done // count} % ({done} of {count}), about {duration(left)} left"


def _count(items: Iterable[object], total: int | None) -> int | None:
    if total is None and isinstance(items, Sized):
        return len(items)
    return total
