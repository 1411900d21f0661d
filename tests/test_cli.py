"""The command line: quick to answer, honest in its exit codes, the same three lines for every mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from run_cli import Ran, run_cli

import shrink
from shrink import shell
from shrink.errors import StageError
from shrink.verbs import options

ROOT = Path(__file__).parents[1]
SHRINK = (sys.executable, "-m", "shrink.cli")
HEAVY = {"torch", "numpy", "onnx", "timm", "torchvision", "litert_torch", "scipy", "PIL"}


Command = Callable[..., Ran]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    return partial(run_cli, capfd)


# --- help


def test_help_takes_at_most_0_4_seconds() -> None:
    """Of the processor: a busy machine makes any program wait."""
    taken = []
    for _ in range(3):
        before = os.times()
        subprocess.run([*SHRINK, "--help"], cwd=ROOT, check=True, capture_output=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(taken) <= 0.4


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["export", "--help"], ["--version"], ["targets", "list"], ["export"], ["export", "--frobnicate"]],
)
def test_words_alone_import_nothing_heavy(argv: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "shrink.cli", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 2)
    found = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines() if "import time" in line
    }
    assert "typer" in found
    assert found & HEAVY <= ({"numpy", "PIL"} if argv == ["export"] else set())  # a recipe knows what data there is


def test_an_import_of_torch_would_be_seen() -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import numpy"], capture_output=True, text=True, check=True
    )
    assert "numpy" in {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}


def test_help_states_the_exit_codes(command: Command) -> None:
    ran = command("--help")
    words = " ".join(ran.out.split())
    assert ran.code == 0 and ran.err == ""
    for line in ("0 done", "1 a step failed", "2 the request cannot", '3 a verdict is "fail"', "130 interrupted"):
        assert line in words
    words = " ".join(command("export", "--help").out.split())
    assert '3 a verdict is "not enough images": all bundles are written' in words
    assert "--keep-failed" in words


def test_no_line_of_help_is_cut_short(command: Command) -> None:
    """typer ends a summary that is too long with dots."""
    assert "..." not in command("--help").out.replace("[ARGS]...", "")
    assert "..." not in command("targets", "--help").out.replace("[ARGS]...", "")


def test_version(command: Command) -> None:
    assert command("--version") == Ran(0, f"shrink {shrink.__version__}\n", "")


@pytest.mark.parametrize("argv", [[], ["targets"], ["data"]])
def test_a_bare_command_shows_its_help_and_fails(command: Command, argv: list[str]) -> None:
    ran = command(*argv)
    assert ran.code == 2 and ran.out == "" and ran.err.startswith("Usage: shrink ")


# --- mistakes on the command line


@pytest.mark.parametrize(
    ("argv", "what", "fix"),
    [
        (["exprot", "x"], "there is no command 'exprot'", "did you mean 'export'?"),
        (["targets", "lst"], "there is no command 'lst'", "did you mean 'list'?"),
        (["export", "--tarrget", "x"], "there is no option '--tarrget'", "did you mean '--target'?"),
        (["export", "a", "b"], "got unexpected extra argument(s) (b)", "see `shrink export --help`"),
        (["export", "--max-drop", "much"], "invalid value for '--max-drop'", "see `shrink export --help`"),
        (["export", "--out"], "option '--out' requires an argument", "see `shrink"),
        (["targets", "show"], "missing argument 'NAME'", "see `shrink targets show --help`"),
        (["targets", "show", "onnx-int9"], "unknown target 'onnx-int9'", "did you mean 'onnx-int8'?"),
        (
            ["data", "unpack", "a", "b", "--count", "0"],
            "invalid value for '--count'",
            "see `shrink data unpack --help`",
        ),
        (["inspect", "a.tflite", "--require", "int4=1"], "--require does not know 'int4'", "did you mean 'int8'?"),
        (["inspect", "a.tflite", "--require", "int8=2"], "--require int8 is '2'", "write int8=0.95"),
    ],
)
def test_a_mistake_is_three_lines_and_exit_2(command: Command, argv: list[str], what: str, fix: str) -> None:
    ran = command(*argv)
    assert (ran.code, ran.out) == (2, "")
    assert ran.problem[0].startswith(what) and ran.problem[2].startswith(fix)


# --- whatever happens inside


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    from shrink import targets

    def names() -> tuple[str, ...]:
        raise error

    monkeypatch.setattr(targets, "names", names)


def test_a_failed_stage_is_exit_1_with_its_notes(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    error = StageError("what", "why", "fix")
    error.add_note("  log: /tmp/x.log")
    failing(monkeypatch, error)
    assert command("targets", "list") == Ran(1, "", "error: what\n  why: why\n  fix: fix\n  log: /tmp/x.log\n")


def test_an_interrupt_is_exit_130(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    assert command("targets", "list") == Ran(130, "", "interrupted\n")


@pytest.mark.parametrize("becomes", [RuntimeError("pass manager failed"), StageError("what", "why", "fix")])
def test_an_interrupt_that_a_library_turned_into_another_error_is_one_still(
    command: Command, monkeypatch: pytest.MonkeyPatch, becomes: Exception
) -> None:
    def names() -> tuple[str, ...]:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the signal did not arrive")
        except KeyboardInterrupt:
            raise becomes from None

    monkeypatch.setattr("shrink.targets.names", names)
    before = signal.getsignal(signal.SIGINT)
    assert command("targets", "list") == Ran(130, "", "interrupted\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_bug_keeps_its_traceback_and_is_exit_1() -> None:
    code = "from shrink import targets, cli; targets.names = lambda: [][0]; cli.main(['targets', 'list'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith("Traceback") and run.stderr.endswith("IndexError: list index out of range\n")


@pytest.mark.parametrize("argv", [["targets", "list"], ["targets", "show", "tflite-int8"], ["--help"]])
def test_a_reader_that_stops_early_makes_no_noise(argv: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run([*SHRINK, *argv], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert run.stderr == ""
    assert run.returncode == 0 or argv == ["--help"]


RESULTS = "from shrink.shell import results_console; results_console().print('\\n'.join(['x' * 60] * 3000))"
PROGRESS = """
import typer
from shrink import shell
from shrink.quiet import chatter_aside

app = typer.Typer()

@app.command()
def work():
    with chatter_aside() as terminal:
        for _ in range(9):
            terminal.write("progress\\n")

raise SystemExit(shell.run(app, [], name="work"))
"""


@pytest.mark.parametrize(("code", "expected"), [(RESULTS, 0), (PROGRESS, 1)])
def test_neither_results_nor_progress_need_a_reader(code: str, expected: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    streams = (
        {"stdout": writer, "stderr": subprocess.PIPE}
        if code == RESULTS
        else {"stdout": subprocess.PIPE, "stderr": writer}
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, **streams)
    os.close(writer)
    assert (run.returncode, run.stdout or b"", run.stderr or b"") == (expected, b"", b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_are_no_error(closed: str) -> None:
    run = subprocess.run(f'"{sys.executable}" -m shrink.cli targets list {closed}', shell=True, cwd=ROOT, check=False)
    assert run.returncode == 0


def test_data_unpack_lists_what_it_wrote(command: Command, tmp_path: Path) -> None:
    ran = command("data", "unpack", "fashion-mnist", tmp_path / "images", "--count", "3")
    assert ran.code == 0 and ran.err == ""
    assert sorted(map(Path, ran.out.splitlines())) == sorted((tmp_path / "images").iterdir())
    assert len(ran.out.splitlines()) == 3


def test_the_exit_codes_are_those_of_the_help() -> None:
    assert (options.EXIT_VERDICT, shell.INTERRUPTED) == (3, 130)
