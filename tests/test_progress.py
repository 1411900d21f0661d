import doctest
import io
import re
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrink import progress
from shrink.progress import Bars, Lines, Progress, Quiet, progress_on


class FakeClock:
    """Seconds that pass only when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def seen(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


KINDS: list[Callable[[], Progress]] = [
    Quiet,
    lambda: Lines(io.StringIO(), stages=1),
    lambda: Bars(Terminal(), stages=1),
]


def log(count: int, seconds: float, *, total: int | None = None) -> list[str]:
    """The lines of one stage with one loop."""
    clock, stream = FakeClock(), io.StringIO()
    with Lines(stream, stages=7, clock=clock).stage("quantize") as stage:
        for _ in stage.track(iter(range(count)), total=total):
            clock.now += seconds
    return stream.getvalue().splitlines()


def test_a_short_stage_is_one_line() -> None:
    clock, stream = FakeClock(), io.StringIO()
    shown = Lines(stream, stages=7, clock=clock)
    with shown.stage("load"):
        assert stream.getvalue() == "[1/7] load ..."  # at once, before it is done
        clock.now += 4.2
    with shown.stage("quantize"):
        clock.now += 75
    assert stream.getvalue() == "[1/7] load ... 4.2 s\n[2/7] quantize ... 1 min 15 s\n"


def test_a_long_loop_tells_how_far_it_is() -> None:
    assert log(31, 1.0, total=31) == [
        "[1/7] quantize ...",
        "  6 % (2 of 31), about 29.0 s left",
        "  22 % (7 of 31), about 24.0 s left",
        "  38 % (12 of 31), about 19.0 s left",
        "  54 % (17 of 31), about 14.0 s left",
        "  70 % (22 of 31), about 9.0 s left",
        "  87 % (27 of 31), about 4.0 s left",
        "[1/7] quantize ... 31.0 s",
    ]


def test_a_loop_of_unknown_length_tells_what_is_done() -> None:
    assert log(6, 1.0) == ["[1/7] quantize ...", "  2 done", "[1/7] quantize ... 6.0 s"]


def test_a_loop_under_two_seconds_says_nothing() -> None:
    assert log(190, 0.01, total=190) == ["[1/7] quantize ... 1.9 s"]


def test_the_last_item_needs_no_line() -> None:
    assert log(2, 1.0, total=2) == ["[1/7] quantize ... 2.0 s"]


@given(st.integers(1, 300), st.floats(0.01, 20))
def test_lines_of_a_loop_come_five_seconds_apart_at_the_least(count: int, seconds: float) -> None:
    assert len(log(count, seconds, total=count)) <= 2 + 1 + count * seconds / 5


def test_more_items_than_announced_are_no_error() -> None:
    assert log(4, 3.0, total=2)[-2:] == ["  3 done", "[1/7] quantize ... 12.0 s"]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_stage_that_fails_says_so_and_lets_the_error_through(stream: io.StringIO) -> None:
    clock = FakeClock()
    shown = progress_on(stream, stages=2, clock=clock)
    with pytest.raises(ZeroDivisionError), shown.stage("verify"):
        clock.now += 1.5
        raise ZeroDivisionError
    assert "[1/2] verify ... failed after 1.5 s\n" in stream.getvalue()


@pytest.mark.parametrize("make", KINDS)
def test_a_loop_gets_every_item_in_order_and_only_when_it_asks(make: Callable[[], Progress]) -> None:
    drawn = []

    def items() -> Iterator[int]:
        for i in range(5):
            drawn.append(i)
            yield i

    with make().stage("calibrate") as stage:
        assert list(stage.track([3, 1, 2])) == [3, 1, 2]
        for i in stage.track(items(), total=5):
            assert drawn == list(range(i + 1))
        assert next(iter(stage.track([7, 8]))) == 7  # leaving a loop early does no harm
    assert drawn == [0, 1, 2, 3, 4]


def test_a_terminal_keeps_a_line_per_stage() -> None:
    clock, stream = FakeClock(), Terminal()
    shown = progress_on(stream, stages=2, clock=clock)
    with shown.stage("load"):
        clock.now += 4.2
    with shown.stage("[red]quantize") as stage:
        for _ in stage.track(range(4)):
            clock.now += 10.0
    assert "[1/2] load ... 4.2 s\n" in stream.seen()
    assert "[2/2] [red]quantize ... 40.0 s\n" in stream.seen()
    assert "4/4" in stream.seen()


def test_the_kind_follows_the_stream() -> None:
    assert isinstance(progress_on(Terminal(), stages=1), Bars)
    assert isinstance(progress_on(io.StringIO(), stages=1), Lines)


@pytest.mark.parametrize("make", KINDS)
def test_stdout_is_left_alone(make: Callable[[], Progress], capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with make().stage("export") as stage:
        assert (sys.stdout, sys.stderr) == before
        list(stage.track(range(3)))
    assert capsys.readouterr() == ("", "")


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(progress) == (0, 3)
