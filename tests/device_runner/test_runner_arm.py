"""The runner on 64-bit ARM, emulated by QEMU: does it give the answers it gives here? No time is measured."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from runner_bundles import make_files, photo, write_directory

from device_runner.bundle import open_bundle
from device_runner.frames import Frame
from device_runner.worker.model import Model
from shrink.boards.emulator import SETUP, emulated, read_manifest
from shrink.boards.places import places

ROOT = Path(__file__).parents[2]
PLACES = places(os.environ)
pytestmark = pytest.mark.skipif(
    read_manifest(PLACES.emulator) is None, reason=f"the emulated board is not set up: {SETUP}"
)
CHILDREN = "import os, sys\nsys.executable = os.environ['EMULATED']\n"  # of an emulated program are not emulated

Emulated = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def arm(tmp_path: Path) -> Emulated:
    """Runs the emulated Python, whose children are emulated too."""
    board = emulated("qemu:cortex-a72", PLACES)
    folder = tmp_path / "arm"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CHILDREN)
    program, python = folder / "python", list(board.python)
    at = next(i for i, word in enumerate(python) if word.startswith("PYTHONPATH="))
    python[at] = f"PYTHONPATH={folder}:{ROOT}:{python[at].removeprefix('PYTHONPATH=')}"
    python[at + 1 : at + 1] = ["-E", f"EMULATED={program}"]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(python)} "$@"\n')
    program.chmod(0o755)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [str(program), *map(str, arguments)]
        environment = {**os.environ, **board.environment}
        return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, env=environment)

    return run


@pytest.mark.parametrize("kind", ["tflite-int8", "tflite-float32", "onnx-int8"])
def test_the_self_test_passes_with_the_answers_of_this_machine(kind: str, arm: Emulated, tmp_path: Path):
    bundle = write_directory(tmp_path / "b", make_files(kind))
    done = arm("-m", "device_runner", "selftest", bundle)
    assert done.returncode == 0, done.stderr
    assert "selftest ok: 4 golden images" in done.stdout and "pixels differ by at most 0" in done.stdout
    if kind.endswith("int8"):
        assert "outputs by 0 " in done.stdout


def test_a_whole_run_gives_the_answers_of_this_machine(arm: Emulated, tmp_path: Path, bundle_path: Path):
    """Source and model in their own processes, rules, audit, replay."""
    shots = tmp_path / "shots"
    shots.mkdir()
    for i in range(3):
        (shots / f"{i}.jpg").write_bytes(photo(i))
    (shots / "3.jpg").write_bytes(b"no image")
    model = Model.load(open_bundle(bundle_path))
    frames = (Frame(captured_ns=0, name="", kind="file", size=(0, 0), data=photo(i)) for i in range(3))
    expected = [model.see(frame).confidences for frame in frames]
    config = tmp_path / "c.toml"
    config.write_text(
        f'bundle = "{bundle_path}"\nstate = "{tmp_path}/state"\naudit_every = true\ndeadline_s = 60\n'
        f'[source]\nurl = "{shots}"\n[[rule]]\nname = "r"\nlabel = "cat"\nmin_confidence = 0.1\nmax_age_ms = 60000\n'
    )
    done = arm("-m", "device_runner", "run", config)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("inert") for line in lines] == [None, None, None, "refused"], done.stderr
    assert [line["confidence"] for line in lines[:3]] == pytest.approx([max(c) for c in expected], abs=1e-6)
    replayed = arm("-m", "device_runner", "replay", tmp_path / "state" / "audit.jsonl")
    assert replayed.returncode == 0 and "replayed 4 decisions" in replayed.stdout
