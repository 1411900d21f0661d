"""Runs that share a machine stand still while one of them takes times, and go on afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.turns import alone, joined, release, with_children

OTHER = """
import subprocess, sys, time
from pathlib import Path
from benchmarks.turns import alone, joined
folder = Path(sys.argv[1])
with joined(folder):
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    print(child.pid, flush=True)
    if sys.argv[2:]:
        with alone(folder):
            print("alone", flush=True)
            time.sleep(60)
    child.wait()
"""


@contextmanager
def other(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another run and the process that it started; both are gone afterwards."""
    command = [sys.executable, "-c", OTHER, str(folder), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            for pid in (child, process.pid):
                os.kill(pid, 9)


def state(pid: int) -> str:
    """T: stopped; S: asleep."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for(pid: int, wanted: str) -> None:
    """Until the kernel has delivered the signal; a test that never gets there is ended by its own limit."""
    while state(pid) != wanted:
        os.sched_yield()


def test_others_and_their_children_stand_still_and_go_on(tmp_path: Path) -> None:
    with other(tmp_path) as (process, child), joined(tmp_path):
        assert list(with_children(process.pid)) == [process.pid, child]
        with alone(tmp_path):
            wait_for(process.pid, "T")
            wait_for(child, "T")
            assert state(os.getpid()) == "R"
        wait_for(process.pid, "S")
        wait_for(child, "S")


def test_a_killed_one_leaves_nobody_standing(tmp_path: Path) -> None:
    with other(tmp_path) as (waiting, _), other(tmp_path, "alone") as (timing, _):
        assert timing.stdout is not None
        assert timing.stdout.readline() == "alone\n"
        wait_for(waiting.pid, "T")
        timing.kill()
        release(tmp_path)
        wait_for(waiting.pid, "S")


CHILD = """
import os, sys
from pathlib import Path
from benchmarks.turns import alone
with alone(Path(sys.argv[1])):
    print(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[0])
"""


def test_a_child_takes_times_for_its_run(tmp_path: Path) -> None:
    """The run has joined before the child imports anything: whoever takes times would stop it, too."""
    with other(tmp_path) as (process, _), joined(tmp_path):
        with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None and child.stdout.readline() in ("S\n", "R\n")
        assert child.returncode == 0
        wait_for(process.pid, "S")


def test_the_number_of_a_run_that_has_ended_is_not_its_own(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        Path(tmp_path, str(bystander.pid)).touch()  # left by a run of that number
        with alone(tmp_path):
            assert state(bystander.pid) != "T"
        bystander.kill()
