"""A process that is killed or interrupted at any step leaves nothing, or what was there before, whole."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pipeline_samples import BESIDE, MODELS, Exported
from run_cli import Ran

from device_runner.bundle import open_bundle
from shrink import pipeline

ROOT = Path(__file__).parents[2]
SECONDS = 120  # a process that takes longer hangs


@contextlib.contextmanager
def running(out: Path, halves: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """An export in a process of its own."""
    usual = ["--data", str(halves), "--target", "onnx-int8", "--calibrate", "64", "--max-drop", "10", "--out", str(out)]
    command = [sys.executable, "-m", "shrink.cli", "export", f"{MODELS}:good", *usual, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[bytes], text: str) -> bytes:
    """Read stderr until it holds the text."""
    assert process.stderr is not None
    seen, end = b"", time.monotonic() + SECONDS
    while text.encode() not in seen and time.monotonic() < end:
        byte = process.stderr.read(1)
        assert byte, f"it ended before {text}: {seen.decode()}"
        seen += byte
    return seen


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed(out: Path, halves: Path, step: int, *options: str) -> None:
    """Run until that step is announced, then kill -9; in the last step, as soon as something is on disk."""
    with running(out, halves, *options) as process:
        wait_for(process, f"[{step}/{pipeline.STAGES}]")
        while step == pipeline.STAGES and process.poll() is None and not list(out.parent.glob(".out.partial-*")):
            pass
        process.kill()


def check_new(out: Path, before: dict[str, bytes], step: int) -> None:
    """Either `before`, or a whole new export."""
    if step == pipeline.STAGES and content(out) != before:
        assert open_bundle(out / "onnx-int8").manifest.target == "onnx-int8"
        assert {*BESIDE, "onnx-int8"} == {path.name for path in out.iterdir()}
    else:
        assert content(out) == before


STEPS = [
    pytest.param(step, marks=() if step in (3, pipeline.STAGES) else pytest.mark.slow)
    for step in range(1, pipeline.STAGES + 1)
]


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_leaves_the_older_export_and_the_next_run_cleans_up(
    exported: Exported, halves: Path, tmp_path: Path, export: Callable[..., Ran], step: int
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported.out, out)
    before = content(out)
    killed(out, halves, step, "--force")
    check_new(out, before, step)
    if list(tmp_path.iterdir()) != [out]:
        assert export("good", "--max-drop", 10, "--force").code == 0
        assert list(tmp_path.iterdir()) == [out]
        assert open_bundle(out / "onnx-int8").manifest.target == "onnx-int8"


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, pipeline.STAGES + 1))
def test_a_kill_leaves_no_half_export(halves: Path, tmp_path: Path, step: int) -> None:
    killed(tmp_path / "out", halves, step)
    if (tmp_path / "out").exists():
        check_new(tmp_path / "out", {}, step)


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=() if step == 4 else pytest.mark.slow) for step in range(1, pipeline.STAGES)]
)
def test_an_interrupt_ends_without_a_traceback_and_leaves_nothing(halves: Path, tmp_path: Path, step: int) -> None:
    with running(tmp_path / "out", halves) as process:
        seen = wait_for(process, f"[{step}/{pipeline.STAGES}]")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode in (130, -signal.SIGINT)  # the shell calls both 130
    text = (seen + err).decode()
    assert out == b"" and "Traceback" not in text and text.endswith("interrupted\n")
    assert list(tmp_path.iterdir()) == []
