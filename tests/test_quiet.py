"""What converters and models write goes to a log, not to the user; the log is kept only for an error that needs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHATTER = """
import ctypes, os, subprocess, sys, warnings
from shrink.errors import RecipeError, StageError
from shrink.quiet import chatter_aside

print("before")
try:
    with chatter_aside() as terminal:
        terminal.write("progress\\n")
        print("a model's print")
        warnings.warn("a warning")
        ctypes.CDLL(None).printf(b"C stdout, buffered by the C library\\n")
        os.write(2, b"C++ stderr\\n")
        subprocess.run(["echo", "a child"])
        BODY
except BaseException as error:
    sys.stderr.write(f"{type(error).__name__} {getattr(error, '__notes__', [])}")
print("after")
ctypes.CDLL(None).printf(b"C after\\n")
"""


def ran(tmp_path: Path, body: str, script: str = CHATTER) -> tuple[str, str]:
    """(stdout, stderr) of the script with that in the place of BODY, temporary files in `tmp_path`."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script.replace("BODY", body)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    return run.stdout, run.stderr


def test_nothing_but_progress_is_seen_and_nothing_is_left(tmp_path: Path) -> None:
    assert ran(tmp_path, "pass") == ("before\nafter\nC after\n", "progress\n")
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_the_log_that_holds_it_all(tmp_path: Path) -> None:
    out, err = ran(tmp_path, "raise StageError('what', 'why', 'fix')")
    assert out == "before\nafter\nC after\n"
    log = re.fullmatch(r"progress\nStageError \['  log: (\S+)'\]", err)
    assert log
    text = Path(log[1]).read_text()
    for line in ("a model's print", "a warning", "C stdout, buffered", "C++ stderr", "a child"):
        assert line in text
    assert "progress" not in text and list(tmp_path.iterdir()) == [Path(log[1])]


@pytest.mark.parametrize("error", ["RecipeError('what', 'why', 'fix')", "KeyboardInterrupt", "SystemExit(1)"])
def test_a_wrong_request_and_an_interrupt_need_no_log(tmp_path: Path, error: str) -> None:
    out, err = ran(tmp_path, f"raise {error}")
    assert (out, err) == ("before\nafter\nC after\n", f"progress\n{error.partition('(')[0]} []")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_log_is_not_kept(tmp_path: Path) -> None:
    script = "from shrink.quiet import chatter_aside\nwith chatter_aside(): raise ValueError('x')"
    _, err = ran(tmp_path, "", script)
    assert err.endswith("ValueError: x\n") and list(tmp_path.iterdir()) == []


def test_a_kill_leaves_no_log(tmp_path: Path) -> None:
    ran(tmp_path, "os.kill(os.getpid(), 9)")
    assert list(tmp_path.iterdir()) == []
