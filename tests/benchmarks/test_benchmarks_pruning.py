"""What a row of `benchmarks.pruning` reads from the command's progress."""

import io

import pytest

from benchmarks.pruning import stage_seconds
from shrink.progress import progress_on


@pytest.mark.parametrize(("told", "seconds"), [("4.2 s", 4.2), ("4 min 8 s", 248.0), ("4 min", None)])
def test_the_time_of_pruning_is_read_in_minutes_and_seconds(told: str, seconds: float | None) -> None:
    assert stage_seconds(f"load ... 1.0 s\ncapture and prune graph ... {told}\nwrite ... 3.0 s\n") == seconds


def test_it_is_found_in_what_the_command_says() -> None:
    stream = io.StringIO()
    with progress_on(stream, stages=1).stage("capture and prune graph"):
        pass
    assert stage_seconds(stream.getvalue()) == pytest.approx(0, abs=5)
