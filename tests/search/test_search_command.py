"""`shrink search` on a small network: the winner, the same again by its recipe, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from run_cli import Ran, run_cli
from small_worker import MODELS

from device_runner.bundle import open_bundle
from shrink import models, targets
from shrink.boards.kinds import board_of
from shrink.boards.places import Places
from shrink.progress import Quiet
from shrink.recipe import ExportRecipe
from shrink.search.clocks import Here, There, Timed
from shrink.search.front import winner
from shrink.search.space import make
from shrink.search.study import read
from shrink.search.workbench import Workbench
from shrink.steps.calibrating import Calibrated
from shrink.steps.capturing import capture_model, lower_all
from shrink.steps.loading import load
from shrink.steps.writing import write
from shrink.tune.loop import Fitted, Training

USUAL = ("--calibrate", 64, "--quantize", "fast", "--target", "onnx-fp32", "--prune", "2x", "--max-drop", 20)
Search = Callable[..., Ran]


@pytest.fixture
def search(capfd: pytest.CaptureFixture[str], greys: Path, tmp_path: Path) -> Search:
    """`shrink search` of a factory of `search_models`."""

    def run(*options: object, factory: str = "grey", data: Path = greys) -> Ran:
        model = ("--model", f"{MODELS}:{factory}", "--data", data)
        return run_cli(capfd, "search", *model, *USUAL, "--out", tmp_path / "out", *options)

    return run


def sha256(bundle: Path) -> str:
    return hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()


def test_the_winner_is_a_bundle_that_its_recipe_makes_again(
    search: Search, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = search("--smaller", 1.2, "--trials", 3, "--resolution", 16, "--resolution", 12)
    assert ran.code in (0, 3), ran.err  # 60 images decide little
    head, entries, _ = read(str(out / "study.journal"))
    best = winner(head.goal, entries)
    assert best is not None and best.result is not None
    assert 1 / best.result.figures.size_ratio >= 1.2 and f"{best.number} " in ran.out and "<- best" in ran.out
    assert "3 of 3 trials" in ran.err and "the very file of trial" in ran.out
    assert open_bundle(out / "winner" / "onnx-fp32").manifest.target == "onnx-fp32"
    assert sha256(out / "winner" / "onnx-fp32") == best.result.files[0].sha256
    for name in ("size.svg", "latency.svg"):
        assert ElementTree.fromstring((out / name).read_text()).tag.endswith("svg")

    again = run_cli(capfd, "export", "--recipe", out / "winner.toml", "--out", tmp_path / "again")
    assert again.code == ran.code, again.err
    assert sha256(tmp_path / "again" / "onnx-fp32") == sha256(out / "winner" / "onnx-fp32")
    shown = run_cli(capfd, "search", "show", out / "study.journal", "--draw", tmp_path)
    assert shown.code == 0 and "trials: 3 done" in shown.out and (tmp_path / "size.svg").is_file()
    other = search("--trials", 3, "--force")
    assert other.code == 2 and "is of another limits" in other.problem[0]


@pytest.mark.parametrize("qat", [0, 1])
def test_what_a_trial_trained_is_not_trained_again_for_the_winner(
    capfd: pytest.CaptureFixture[str], greys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qat: int
) -> None:
    """But its recipe trains it again, to the same bytes; rounded graphs are trained in trials as in exports."""
    trained: list[int] = []
    run = Training.run

    def counted(self: Training, **options: Any) -> Fitted:
        trained.append(self.settings.epochs)
        return run(self, **options)

    monkeypatch.setattr(Training, "run", counted)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"[tune]\nepochs = 2\nqat = {qat}\n")
    asked = ("--recipe", recipe, "--model", f"{MODELS}:wide", "--data", greys, "--out", tmp_path / "out")
    within = ("--target", "onnx-int8", "--prune", "4x", "--resolution", 16, "--trials", 2, "--calibrate", 64)
    ran = run_cli(capfd, "search", *asked, "--max-drop", 50, *within)
    assert ran.code in (0, 3), ran.err
    head, entries, _ = read(str(tmp_path / "out" / "study.journal"))
    best = winner(head.goal, entries)
    assert best is not None and best.result is not None and best.point.epochs == 2
    rounded = len(entries) + 1  # of every trial, and of the winner's export
    assert sorted(trained) == [1] * (rounded * qat) + [2]
    assert sha256(tmp_path / "out" / "winner" / "onnx-int8") == best.result.files[0].sha256
    report = json.loads((tmp_path / "out" / "winner" / "report.json").read_bytes())
    (artifact,) = report["artifacts"]
    assert any("trained 2 epochs" in change for change in artifact["changes"])

    again = run_cli(capfd, "export", "--recipe", tmp_path / "out" / "winner.toml", "--out", tmp_path / "again")
    assert again.code == ran.code, again.err
    assert sorted(trained) == [1] * ((rounded + 1) * qat) + [2, 2]
    assert sha256(tmp_path / "again" / "onnx-int8") == best.result.files[0].sha256


def test_limits_that_nothing_keeps_name_the_closest(search: Search, tmp_path: Path) -> None:
    ran = search("--size-mb", 0.0001, "--trials", 2, "--resolution", 16)
    assert ran.code == 3 and not (tmp_path / "out" / "winner").exists()
    assert "no trial keeps all limits; the closest is trial" in ran.out and "MB, 0.0001 allowed" in ran.out


def test_an_image_size_that_the_model_does_not_take_is_left_out_and_another_model_is_refused(search: Search) -> None:
    ran = search("--trials", 1, "--worker", factory="fixed")
    assert ran.code == 0 and "not searched: 12 x 12 images: " in ran.err and "size of tensor" in ran.err
    ran = search("--trials", 1)
    assert ran.code == 2 and "is of another model" in ran.problem[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target", "onnx-int9"), "unknown target 'onnx-int9'"),
        (("--size-mb", "0"), "size_mb is 0"),
        (("--max-drop", "101"), "max_drop is 101"),
        (("--resolution", "12"), "does not take an input of shape"),
        (("--prune", "1x"), "prune is '1x'"),
        (("--on", "toaster"), "'toaster' is no board"),
    ],
)
def test_what_cannot_be_searched_is_said_in_three_lines(search: Search, options: tuple[str, str], words: str) -> None:
    ran = search(*options, factory="fixed")
    assert ran.code == 2 and words in ran.problem[0]


def test_files_that_go_together_must_all_keep_the_limits(search: Search, tmp_path: Path) -> None:
    both = "onnx-fp32+onnx-int8"
    assert search("--target", both, "--trials", 2, "--worker", "--resolution", 16).code == 0
    _, entries, _ = read(str(tmp_path / "out" / "study.journal"))
    (done,) = (entry for entry in entries if entry.result and entry.point.targets == both)
    sizes = [file.size_bytes for file in done.result.files]
    assert len(sizes) == 2 and done.result.figures.size_mb == max(sizes) / 1e6


def test_a_recipe_may_ask_for_a_resolution(capfd: pytest.CaptureFixture[str], greys: Path, tmp_path: Path) -> None:
    """The file takes 12 x 12, and what it is compared with is the model at 16 x 16."""
    usual = ("--data", greys, "--target", "onnx-fp32", "--max-drop", 50, "--out", tmp_path / "out")
    ran = run_cli(capfd, "export", f"{MODELS}:grey", *usual, "--resolution", 12)
    assert ran.code in (0, 3), ran.err
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert any("judged against the model at its own 16 x 16" in note for note in report["notes"])
    manifest = open_bundle(tmp_path / "out" / "onnx-fp32").manifest
    assert manifest.input.shape == (1, 1, 12, 12) and manifest.preprocess.size == (12, 12)
    labels = [(index % 4) for index in range(120)]  # of the pictures, in the order they were made
    model = models.load(f"{MODELS}:grey")
    right = 0
    for index, label in enumerate(labels):
        pixels = np.asarray(Image.open(greys / "val" / "abcd"[label] / f"{index:03}.png"), np.float32)
        scores = model.module(torch.from_numpy((pixels / 255 - 0.5) / 0.5)[None, None])
        right += int(scores.argmax()) == label
    assert report["reference"]["top1"] == right / 120


def test_an_emulated_board_takes_no_limit_of_time(search: Search) -> None:
    ran = search("--on", "qemu:cortex-a72", "--latency-ms", 20)
    assert ran.code == 2 and ran.problem[0] == "a limit of time cannot be measured there"
    assert "emulates" in ran.problem[1]


def test_a_board_times_a_file_in_turns_with_the_whole_model(greys: Path, tmp_path: Path) -> None:
    """A program of its own on this machine, as `shrink bench` starts it on any board."""
    recipe = ExportRecipe(model=f"{MODELS}:grey", data=str(greys), targets=("onnx-fp32",), calibrate="64")
    wanted = (targets.load("onnx-fp32"),)
    job = load(recipe, wanted)
    with Quiet().stage("write") as stage:
        item = write(job, lower_all(job, capture_model(job)), Calibrated({}, 0), stage)["onnx-fp32"]
    file = Timed(job, item)
    clock = There(board_of("local", Places(tmp_path / "cache", tmp_path / "config")))
    median_ms, ratio = clock.time(file, file, seed=0)
    assert 0 < median_ms < 1000 and 0.2 < ratio < 5  # the same file: the ratio is about 1 on any machine


@pytest.mark.parametrize("target", ["onnx-fp32", "tflite-int8"])
def test_a_sketch_weighs_what_the_trained_point_weighs(greys: Path, target: str) -> None:
    base = ExportRecipe(model=f"{MODELS}:grey", data=str(greys), targets=(target,), calibrate="64", prune="2x")
    points = make(base, models.load(f"{MODELS}:grey"), (16,), (target,), ())
    bench = Workbench(base, points, (Here(),))
    with Quiet().stage("all") as stage:
        bench.prepare(stage)
        for point in (points.at(1.0, target), points.at(2.0, target)):
            sketch = bench.sketch(point, stage)
            made = bench.make(point, lambda what, best_case: None, stage).figures
            assert sketch.size_mb == pytest.approx(made.size_mb, abs=0.0005)  # the weights are as many
            assert sketch.latency_ms is not None and (sketch.drop, sketch.drop_likely) == (None, None)
