"""`shrink tune`, what it writes, and `shrink export` of it; and training within an export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pipeline_samples import MODELS, folder
from run_cli import Ran, run_cli

from shrink import models
from shrink.report import schema

MODEL = f"{MODELS}:prunable"
QUICK = ("--epochs", 1, "--batch", 8)


def tune(capfd: pytest.CaptureFixture[str], halves: Path, model: object, *options: object) -> Ran:
    return run_cli(capfd, "tune", model, "--data", halves, *options)


def test_a_pruned_model_is_trained_and_exported(
    capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    ran = tune(capfd, halves, MODEL, *QUICK, "--prune", "1.5x", "--prune-score", "magnitude", "--out", out)
    assert ran.code == 0, ran.err
    assert "to answer as the whole model" in ran.out and f"next: shrink export tuned:{out}" in ran.out
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]  # no checkpoint is left
    about = json.loads((out / "model.json").read_bytes())
    assert about["judged"]["images"] == 60
    exported = tmp_path / "exported"
    options = ("--target", "onnx-fp32", "--out", exported, "--max-drop", 10)
    ran = run_cli(capfd, "export", f"tuned:{out}", "--data", halves, *options)
    assert ran.code == 0, ran.err
    report = schema.parse((exported / "report.json").read_bytes())
    assert report.reference.top1 == pytest.approx(about["judged"]["end"] / 60)


def test_training_within_an_export_is_judged_against_the_whole_model(
    capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--prune", "1.5x", "--prune-score", "magnitude", "--calibrate", 32, "--max-drop", 10, "--tune", 1)
    ran = run_cli(capfd, "export", MODEL, "--data", halves, "--target", "onnx-fp32", "--out", out, *options)
    assert ran.code == 0, ran.err
    (artifact,) = schema.parse((out / "report.json").read_bytes()).artifacts
    assert artifact.changes[0].startswith("pruned to ")
    assert any(
        change.startswith("trained 1 epochs of 57 images to answer as the whole model") for change in artifact.changes
    )


def test_training_with_rounding_is_a_rung_of_the_ladder(
    capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    targets = ("--target", "onnx-int8", "--target", "tflite-int8", "--target", "tflite-int16x8")
    options = ("--calibrate", 32, "--max-drop", 100, "--quantize", "fast", "--qat", 2)
    ran = run_cli(capfd, "export", MODEL, "--data", halves, *targets, "--out", out, *options)
    assert ran.code == 0, ran.err
    last = {item.target: item.rungs[-1] for item in schema.parse((out / "report.json").read_bytes()).artifacts}
    assert all(
        last[name].what.startswith("trained 2 epochs with rounding: loss ") for name in ("onnx-int8", "tflite-int8")
    )
    assert last["tflite-int16x8"].why == "activations of 16 bits are hardly rounded"


def test_images_that_were_trained_on_never_judge(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A set without parts is cut into four fifths and one; a later export of the model must not judge by the four."""
    data = folder(tmp_path / "data", train=0, val=100) / "val"
    out = tmp_path / "tuned"
    ran = tune(capfd, data, MODEL, *QUICK, "--labels", 0.5, "--out", out)
    assert ran.code == 0, ran.err
    assert "on 20 images not trained on" in ran.out
    assert len(models.load(f"tuned:{out}").trained_on) == 80
    exported = tmp_path / "exported"
    options = ("--target", "onnx-fp32", "--out", exported, "--max-drop", 100)
    ran = run_cli(capfd, "export", f"tuned:{out}", "--data", data, *options)
    report = schema.parse((exported / "report.json").read_bytes())
    assert report.data.evaluation_images == 20
    assert any("trained on were left out" in note for note in report.data.notes)


def test_a_new_head_learns_other_classes(capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path) -> None:
    """Two classes instead of four: left or right, from the same pictures."""
    data = tmp_path / "sides"
    for part in ("train", "val"):
        for old in (halves / part).iterdir():
            side = data / part / old.name.partition("-")[0]
            side.mkdir(parents=True, exist_ok=True)
            for image in old.iterdir():
                (side / f"{old.name}-{image.name}").write_bytes(image.read_bytes())
    out = tmp_path / "tuned"
    ran = tune(capfd, data, MODEL, *QUICK, "--head", 0, "--out", out)
    assert ran.code == 0, ran.err
    assert "top-1 new head -> " in ran.out
    about = json.loads((out / "model.json").read_bytes())
    assert about["judged"]["end"] > 50 and about["labels"] == ["left", "right"]
    assert models.load(f"tuned:{out}").outputs == 2


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ((), "there is nothing to train"),
        (("--epochs", 1), "there is nothing to learn"),
        (("--epochs", 1, "--labels", 2), "tune.labels is 2.0"),
        (("--epochs", 1, "--labels", 1, "--batch", 12), "tune.batch is 12"),
        (("--epochs", 1, "--labels", 1, "--loss", "cube"), "tune.loss is 'cube' in the command"),
        (("--epochs", 1, "--head", 0, "--prune", "2x"), "a new head and pruning are both asked for"),
        (("--epochs", 1, "--head", 7), "the model gives 7 scores and {data} has 4 classes"),
        (("--epochs", 1, "--teacher-checkpoint", "t.pt"), "tune.teacher_checkpoint is given, and no teacher"),
        (("--epochs", 1, "--teacher", f"{MODELS}:five"), f"{MODELS}:five cannot be the teacher"),
    ],
)
def test_what_cannot_be_trained_is_said_in_three_lines(
    capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path, options: tuple[object, ...], what: str
) -> None:
    ran = tune(capfd, halves, MODEL, "--out", tmp_path / "tuned", *options)
    assert ran.code == 2 and ran.problem[0] == what.format(data=halves)
    assert not list(tmp_path.iterdir())


def without_images(data: Path) -> None:
    for path in data.rglob("*.png"):
        path.unlink()


def few(data: Path) -> None:
    for path in sorted((data / "train").rglob("*.png"))[10:]:
        path.unlink()


def one_more_class(data: Path) -> None:
    for part in ("train", "val"):
        (data / part / "zebra").mkdir()
        shutil.copy(next((data / part).rglob("*.png")), data / part / "zebra" / "1.png")


def none_of_one_class(data: Path) -> None:
    for path in sorted((data / "train").iterdir())[0].iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("change", "options", "what"),
    [
        (without_images, (), "{data}/train is empty"),
        (few, (), "10 images are too few to train on"),
        (one_more_class, (), "the model gives 4 scores and {data} has 5 classes"),
        (none_of_one_class, ("--balance",), "no training image is of {first}"),
    ],
)
def test_images_that_teach_nothing_are_refused(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    change: Callable[[Path], None],
    options: tuple[str, ...],
    what: str,
) -> None:
    data = folder(tmp_path / "data", train=64, val=60)
    first = min(path.name for path in (data / "train").iterdir())
    change(data)
    ran = tune(capfd, data, MODEL, *QUICK, "--labels", 0.5, "--out", tmp_path / "tuned", *options)
    assert ran.code == 2 and ran.problem[0] == what.format(data=data, first=first), ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_labels_that_are_not_there_teach_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Images without labels are no data set: the trained model could not be judged by them either."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "plain.npz", x_train=rng.integers(0, 255, (64, 16, 16), np.uint8))
    ran = tune(capfd, tmp_path / "plain.npz", MODEL, *QUICK, "--labels", 0.5, "--out", tmp_path / "tuned")
    assert ran.code == 2 and ran.problem[0] == f"{tmp_path / 'plain.npz'} lacks the arrays of a data set", ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["plain.npz"]
