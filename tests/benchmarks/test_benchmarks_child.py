"""A child's end is told truly: its limits, its crash, its own words."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.child import Ended, failure, run
from benchmarks.zoo import blame


def python(code: str, tmp_path: Path, **limits: float) -> Ended:
    limits = {"limit_seconds": 20.0, **limits}
    return run([sys.executable, "-c", code], cwd=tmp_path, scratch=tmp_path, **limits)  # type: ignore[arg-type]


def test_output_time_and_memory_are_told(tmp_path: Path) -> None:
    ended = python("x = bytearray(80_000_000); print(len(x))", tmp_path)
    assert (ended.code, ended.out.strip(), failure(ended, "it")) == (0, "80000000", None)
    assert 76 < ended.peak_mib < 500


def test_a_child_past_its_time_is_ended_with_its_children(tmp_path: Path) -> None:
    ended = python("import subprocess; subprocess.run(['sleep', '60'])", tmp_path, limit_seconds=0.5)
    told = failure(ended, "it")
    assert ended.timed_out and ended.seconds < 10
    assert told is not None and told.what == "it was stopped"


def test_memory_is_bounded(tmp_path: Path) -> None:
    told = failure(python("bytearray(3 << 30)", tmp_path, memory_gib=1.0), "it")
    assert told is not None and told.why == "MemoryError"


def test_a_crash_names_its_signal(tmp_path: Path) -> None:
    told = failure(python("import os; os.abort()", tmp_path), "it")
    assert told is not None and told.what == "it crashed: signal SIGABRT"


def test_the_three_lines_of_our_errors_are_found() -> None:
    err = "warning\nerror: no model\n  why: it is gone\n  fix: bring it\n  log: x\n"
    told = failure(Ended(2, 1.0, 1.0, False, "", err), "shrink export")
    assert told is not None and (told.what, told.why, told.fix) == ("no model", "it is gone", "bring it")


def test_a_crash_is_blamed_on_the_part_at_work() -> None:
    told = failure(Ended(-11, 1.0, 1.0, False, "", ""), "it")
    assert told is not None
    result = {
        "parts": {
            "done": {"stage": "", "failure": None},
            "failed": {"stage": "make", "failure": {"what": "old"}},
            "at work": {"stage": "run", "failure": None},
        }
    }
    blame(result, told)
    found = {name: part["failure"] for name, part in result["parts"].items()}
    assert found["done"] is None
    assert found["failed"] == {"what": "old"}
    assert found["at work"] == {"what": "it crashed: signal SIGSEGV", "why": "it said nothing", "fix": "run it by hand"}


def test_a_run_that_is_ended_takes_its_child_along(tmp_path: Path) -> None:
    written = tmp_path / "pid"
    sleeper = f"import os, time; open({str(written)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import sys; from pathlib import Path; from benchmarks.child import run;"
        f"run([sys.executable, '-c', {sleeper!r}], cwd=Path('.'), scratch=Path({str(tmp_path)!r}), limit_seconds=60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    wait_for(lambda: written.is_file() and written.read_text() != "")
    parent.kill()
    parent.wait()
    wait_for(lambda: not Path("/proc", written.read_text()).exists())


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not happened():
        assert time.monotonic() < end, "it did not happen in 15 s"
        time.sleep(0.05)
