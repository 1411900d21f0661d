"""Every bad request ends in three lines, the right exit code, and with nothing written."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pipeline_models
import pytest
import torch
from PIL import Image
from pipeline_samples import CLASSES, MODELS, folder
from run_cli import Ran
from safetensors.torch import save_file

from device_runner.errors import Problem
from shrink import errors, pipeline, targets
from shrink.progress import Quiet
from shrink.recipe import ExportRecipe

Export = Callable[..., Ran]


@pytest.fixture
def refused(export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str, str]]:
    """Exports, and checks the class, its exit code and that nothing is written; gives what, why and fix."""
    raised: list[BaseException] = []

    def remember(self: Problem, *words: str) -> None:
        raised.append(self)
        plain(self, *words)

    plain = Problem.__init__
    monkeypatch.setattr(Problem, "__init__", remember)

    def run(kind: type[Problem], factory: str, *options: object, **given: object) -> tuple[str, str, str]:
        before = everything(tmp_path)
        ran = export(factory, *options, **given)
        assert ran.problem == (raised[-1].what, raised[-1].why, raised[-1].fix)
        assert type(raised[-1]) is kind and ran.code == kind.exit_code
        assert ran.out == ""
        assert everything(tmp_path) == before
        return ran.problem

    return run


def everything(root: Path) -> dict[str, bytes | None]:
    """All files and folders below, hidden ones too."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}


Refused = Callable[..., tuple[str, str, str]]


# --- checkpoints


def weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None] = lambda _: None) -> Path:
    """A checkpoint of `pipeline_models.good`, changed."""
    state = {key: tensor.clone() for key, tensor in pipeline_models.good().state_dict().items()}
    change(state)
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def test_a_checkpoint_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    what, why, fix = refused(errors.CheckpointError, "good", "--checkpoint", tmp_path / "gone.pt")
    assert "cannot read the checkpoint" in what and "gone.pt" in what
    assert why == "No such file or directory" and fix == "check the path"


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_truncated_checkpoint(refused: Refused, tmp_path: Path, name: str, share: float) -> None:
    path = weights(tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    what, _, fix = refused(errors.CheckpointError, "good", "--checkpoint", path)
    assert what == f"the checkpoint {path} is truncated or damaged"
    assert fix.startswith("copy or download it again")


class Bomb:
    """Unpickling it writes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("how", ["torch.save", "old torch.save", "pickle"])
def test_a_pickle_that_carries_code_is_never_run(refused: Refused, tmp_path: Path, how: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "a.pt"
    content = {"measure.weight": torch.zeros(2, 1, 16, 16), "bomb": Bomb(canary)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch.save")
    what, why, fix = refused(errors.CheckpointError, "good", "--checkpoint", path)
    assert not canary.exists()
    assert "holds more than tensors and was not loaded" in what
    assert "reading that could run code" in why and "torch.save(model.state_dict()" in fix
    load = pickle.loads if how == "pickle" else partial(torch.load, weights_only=False)
    load(path.read_bytes() if how == "pickle" else path)  # the canary sings when it is let to
    assert canary.exists()
    canary.unlink()


def test_a_checkpoint_of_another_model_names_the_first_keys_of_both(refused: Refused, tmp_path: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Linear(3, 4)).state_dict(), tmp_path / "a.pt")
    what, why, _ = refused(errors.CheckpointError, "good", "--checkpoint", tmp_path / "a.pt")
    assert what == "the checkpoint is of another model"
    assert "missing measure.weight, measure.bias, name.weight" in why
    assert "unexpected 0.weight, 0.bias, 1.weight" in why


def test_a_checkpoint_of_other_sizes_names_them(refused: Refused, tmp_path: Path) -> None:
    path = weights(
        tmp_path / "a.pt", lambda state: state.update({"name.weight": torch.zeros(7, 2), "name.bias": torch.zeros(7)})
    )
    _, why, fix = refused(errors.CheckpointError, "good", "--checkpoint", path)
    assert why == "name.weight is 7x2, the model has 4x2, name.bias is 7, the model has 4"
    assert fix == "add ?num_classes=7 to the model"


def test_a_checkpoint_with_nan(refused: Refused, tmp_path: Path) -> None:
    path = weights(tmp_path / "a.safetensors", lambda state: state["name.weight"].fill_(float("nan")))
    what, why, _ = refused(errors.CheckpointError, "good", "--checkpoint", path)
    assert what == "the checkpoint holds NaN or infinity" and why == "the first is in name.weight"


# --- models


def test_a_model_with_more_outputs_than_labels(refused: Refused) -> None:
    what, _, fix = refused(errors.DataError, "five")
    assert what.startswith("the model gives 5 scores and ") and what.endswith(" has 4 classes")
    assert "?num_classes=4" in fix


@pytest.mark.parametrize(
    ("model", "what", "fix"),
    [
        (
            "torchvision:mobilenet_v22",
            "torchvision has no classification model 'mobilenet_v22'",
            "did you mean 'mobilenet_v2'?",
        ),
        ("timm:resnet81", "timm has no classification model 'resnet81'", "did you mean 'resnet"),
        ("torchvison:resnet18", "there is no Python module 'torchvison'", "did you mean 'torchvision'?"),
        (f"{MODELS}:gold", f"{MODELS} has no factory 'gold'", "did you mean 'good'?"),
        (f"{MODELS}:good?classes=4", "good does not take 'classes'", "leave the argument out"),
        ("nowhere.py:make", "there is no file nowhere.py", "check the path"),
        ("resnet18:", "'resnet18:' does not say where the model comes from", "if it is a model of a library"),
    ],
)
def test_an_unknown_model_suggests_the_nearest(refused: Refused, model: str, what: str, fix: str) -> None:
    said = refused(errors.ModelError, model)
    assert said[0].startswith(what) and said[2].startswith(fix)


def test_a_model_that_gives_nan_names_the_layer(refused: Refused) -> None:
    what, why, _ = refused(errors.ModelError, "overflowing")
    assert what.endswith("overflowing gives NaN or infinity") and why == "layer 'root' is the first to do so"


def test_a_model_that_answers_a_constant(refused: Refused) -> None:
    what, _, fix = refused(errors.ModelError, "constant")
    assert what.endswith("constant gives the very same scores for 8 different images")
    assert fix == "give the trained weights with --checkpoint"


def test_a_model_that_fails_on_an_image(refused: Refused) -> None:
    what, why, _ = refused(errors.ModelError, "touchy")
    assert what.endswith("touchy fails on an image") and why == "ValueError: a bright image"


# --- data


def test_data_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    what, _, fix = refused(errors.DataError, "good", data=tmp_path / "gone")
    assert what == f"there is no data '{tmp_path}/gone'" and "check the path" in fix
    assert "did you mean 'fashion-mnist'" in refused(errors.DataError, "good", data=Path("fashion-mnst"))[2]


def test_an_empty_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    what, why, fix = refused(errors.DataError, "good", data=tmp_path / "data")
    assert (what, why) == (f"{tmp_path}/data is empty", "it holds no files") and "one sub-folder per class" in fix


def test_a_folder_of_no_images(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "data" / "cats").mkdir(parents=True)
    (tmp_path / "data" / "cats" / "notes.txt").write_text("cats")
    what, why, _ = refused(errors.DataError, "good", data=tmp_path / "data")
    assert what == f"{tmp_path}/data holds no images"
    assert why.startswith("it holds 1 files, such as notes.txt, none of them .jpg")


@pytest.mark.parametrize(("part", "count"), [("train", 4), ("val", 4)])
def test_too_many_corrupt_images(refused: Refused, tmp_path: Path, part: str, count: int) -> None:
    data = folder(tmp_path / "data", train=64, val=60)
    for path in sorted((data / part / CLASSES[2]).iterdir())[:count]:
        path.write_bytes(b"no image")
    what, why, fix = refused(errors.DataError, "good", data=data)
    assert re.fullmatch(rf"{count} of the 6[04] images of .*data cannot be read", what)
    assert f"that is over 5%; the first is {part}/{CLASSES[2]}/" in why and fix == "repair them or take them out"


def test_too_few_images_to_calibrate_with(refused: Refused) -> None:
    what, _, _ = refused(errors.DataError, "good", "--calibrate", 8)
    assert what == "8 calibration images are too few"


def calibration(root: Path, make: Callable[[np.random.Generator], np.ndarray]) -> Path:
    rng = np.random.default_rng(0)
    root.mkdir()
    for index in range(40):
        Image.fromarray(make(rng)).save(root / f"{index:02}.png")
    return root


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda rng: np.full((16, 16), rng.integers(256), np.uint8), "calibration images are constant"),
        (lambda rng: rng.integers(0, 256, (16, 16), dtype=np.uint8), "calibration images are random noise"),
        (
            lambda rng: np.eye(16, dtype=np.uint8) * rng.integers(2, 9, dtype=np.uint8),
            "calibration images use hardly any",
        ),
    ],
)
def test_calibration_images_that_would_give_wrong_ranges(
    refused: Refused, tmp_path: Path, make: Callable[[np.random.Generator], np.ndarray], what: str
) -> None:
    folder_ = calibration(tmp_path / "calibration", make)
    said = refused(errors.CalibrationError, "good", "--calibrate", folder_)
    assert said[0].startswith(what) and said[2].startswith("give photographs like those in use")


def test_evaluation_images_may_not_calibrate(refused: Refused, halves: Path) -> None:
    what, _, fix = refused(errors.DataError, "good", "--calibrate", halves / "val")
    assert what.startswith("calibration and evaluation share images, such as ") and "--calibrate 256" in fix


# --- what can go wrong on the way


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_an_artefact_that_answers_a_constant(refused: Refused, target: str) -> None:
    what, why, _ = refused(errors.ArtifactError, "faint", target=target)
    assert what == f"{target} gives the very same scores for all 60 images"
    assert why.startswith("its answer does not depend on the image")


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_an_artefact_that_answers_nan_or_infinity(refused: Refused, target: str) -> None:
    what, why, _ = refused(errors.ArtifactError, "ratio", target=target)
    assert re.fullmatch(rf"{target}: the model gave (nan|-?inf) for class 0", what) and "are not numbers" in why


def test_an_op_that_cannot_be_captured_names_layer_and_code(refused: Refused) -> None:
    what, why, fix = refused(errors.CaptureError, "doubtful")
    assert what == "the model cannot be captured: `return x if x.sum() > 0 else 2 * x` in layer 'gate'"
    assert 'pipeline_models.py", line ' in why and "depend on pixel values" in fix


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_an_op_that_cannot_be_lowered_names_layer_and_op(refused: Refused, target: str) -> None:
    what, why, _ = refused(errors.LoweringError, "exotic", target=target)
    assert "linalg" in what + why and "'solver'" in what + why


# --- requests that contradict what is there


def test_an_output_that_exists(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    what, _, fix = refused(errors.OutputError, "good")
    assert what == f"{tmp_path}/out exists" and "--force" in fix
    what, why, _ = refused(errors.OutputError, "good", "--force")
    assert what == f"{tmp_path}/out is not an earlier export" and "'thesis.tex'" in why


def test_an_output_below_a_file(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("text")
    what, why, _ = refused(errors.OutputError, "good", "--out", tmp_path / "notes" / "out")
    assert what.endswith("notes/out cannot be made") and why.endswith("notes is a file")


@pytest.mark.parametrize(
    ("options", "what", "fix"),
    [
        (["--target", "tflite-int9"], "unknown target 'tflite-int9'", "did you mean 'tflite-int8'?"),
        (["--target", "onnx-int8"], "the target onnx-int8 is named twice", "name each target once"),
        (["--max-drop", "101"], "max_drop is 101", "use a number of 0 to 100, such as 1.0"),
        (["--recipe", "gone.toml"], "the recipe gone.toml cannot be read", "give the path of a TOML file"),
    ],
)
def test_options_that_make_no_recipe(refused: Refused, options: list[str], what: str, fix: str) -> None:
    said = refused(errors.RecipeError, "good", *options)
    assert (said[0], said[2]) == (what, fix)


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("modle = 'x'", "unknown key 'modle' in ", "did you mean 'model'?"),
        ("max_drop = '1'", "max_drop is '1' in ", "write max_drop = 1.0"),
        ("[preprocess]\ncolor = 'L'", "preprocess.exif is missing in ", "add exif = true"),
        ("seed = ", "the recipe ", "correct that line"),
    ],
)
def test_a_wrong_recipe(refused: Refused, tmp_path: Path, text: str, what: str, fix: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    said = refused(errors.RecipeError, "good", "--recipe", tmp_path / "r.toml")
    assert said[0].startswith(what) and said[2].startswith(fix)


@pytest.mark.parametrize(
    ("argv", "what"), [([f"{MODELS}:good"], "no data is given"), (["--data", "x"], "no model is given")]
)
def test_model_and_data_are_needed(command: Callable[..., Ran], argv: list[str], what: str) -> None:
    ran = command("export", *argv)
    assert ran.code == 2 and ran.problem[0] == what and "shrink export --help" in ran.problem[2]


# --- and what is our own fault


def test_a_bug_is_no_problem_of_the_user(halves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes through as it is, so that Python prints its traceback; and nothing is written."""
    monkeypatch.setattr(pipeline, "measure", lambda *_: 1 // 0)
    recipe = ExportRecipe(model=f"{MODELS}:good", data=str(halves), targets=("onnx-int8",), calibrate="64")
    with pytest.raises(ZeroDivisionError):
        pipeline.export(recipe, tmp_path / "out", progress=Quiet())
    assert everything(tmp_path) == {}


# --- targets


def test_floats_are_not_given_to_a_target_without_floats(refused: Refused) -> None:
    what, why, fix = refused(errors.RecipeError, "good", "--input", "float32", target="tflite-int8-full")
    assert what == "tflite-int8-full takes no float32 input"
    assert "no float is left" in why and "uint8" in fix


def test_a_runtime_that_is_not_installed_names_its_package(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    there = targets.find_spec
    monkeypatch.setattr(targets, "find_spec", lambda name: None if name == "ai_edge_litert" else there(name))
    what, why, fix = refused(errors.RequestError, "good", target="tflite-fp16")
    assert what == "tflite-fp16 needs ai-edge-litert, which is not installed"
    assert "no module ai_edge_litert" in why and fix == "pip install ai-edge-litert"


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))  # importing any of them fails as if it were not there
from shrink.cli import main
main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("target", "other"), [("onnx-int8", "tflite"), pytest.param("tflite-int8", "onnx", marks=pytest.mark.slow)]
)
def test_one_format_needs_no_package_of_the_other(halves: Path, tmp_path: Path, target: str, other: str) -> None:
    out = tmp_path / "out"
    options = ["--data", halves, "--target", target, "--calibrate", 64, "--keep-failed", "--out", out]
    command = [sys.executable, "-c", WITHOUT, ",".join(targets.PACKAGES[other]), "export", f"{MODELS}:good", *options]
    ran = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True)
    assert ran.returncode in (0, 3), ran.stderr  # 60 images may be too few for a verdict
    assert (out / target / "manifest.json").is_file()


def test_an_op_without_integers_is_named_before_anything_is_written(refused: Refused) -> None:
    what, why, fix = refused(errors.LoweringError, "bent", target="tflite-int8-full")
    assert re.fullmatch(r"erf\.default in layer '\S+' has no integer kernel on tflite-int8-full", what)
    assert "computes on integers" in why and "tflite-int8" in fix
