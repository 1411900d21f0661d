"""A recipe says what is asked for, or says in three lines what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrink.errors import RecipeError
from shrink.recipe import EXAMPLES, ExportRecipe, Tune, combine, parse

ASKED = {"model": "timm:resnet18", "data": "photos"}
GREY = {
    "color": "L",
    "exif": True,
    "resize": "exact",
    "size": [28, 28],
    "filter": "bilinear",
    "mean": [0.3],
    "std": [0.4],
}
FULL = """
model = "models/net.py:make?width=2"
data = "photos"
targets = ["onnx-fp32"]
checkpoint = "weights.safetensors"
calibrate = 64
input = "uint8"
layout = "nchw"
max_drop = 2
seed = 7

[preprocess]
color = "RGB"
exif = true
resize = "shorter"
size = [256, 256]
filter = "bilinear"
crop = [224, 224]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def wrong(asked: dict[str, Any]) -> tuple[str, str, str]:
    """What, why and fix."""
    with pytest.raises(RecipeError) as caught:
        parse(asked, "r.toml")
    assert caught.value.exit_code == 2
    return caught.value.what, caught.value.why, caught.value.fix


def test_defaults_are_those_of_the_help() -> None:
    recipe = parse(ASKED, "r.toml")
    assert recipe.targets == ("tflite-int8", "onnx-int8")
    assert (recipe.calibrate, recipe.max_drop, recipe.checkpoint, recipe.seed) == ("256", 1.0, None, 0)
    assert (recipe.input, recipe.layout) == (None, None)


def test_a_file_says_all_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    recipe = combine(write(tmp_path, FULL), {})
    assert recipe.model == f"{tmp_path}/models/net.py:make?width=2"
    assert (recipe.data, recipe.checkpoint) == (f"{tmp_path}/photos", f"{tmp_path}/weights.safetensors")
    assert (recipe.calibrate, recipe.max_drop, recipe.seed, recipe.targets) == ("64", 2.0, 7, ("onnx-fp32",))
    assert (recipe.input, recipe.layout) == ("uint8", "nchw")
    assert recipe.preprocess is not None and recipe.preprocess.crop == (224, 224)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "timm:resnet18"),
        ("model", "package.module:make"),
        ("data", "fashion-mnist"),
        ("data", "/srv/photos"),
        ("calibrate", "64"),
        ("checkpoint", "/srv/weights.pt"),
    ],
)
def test_what_is_no_relative_path_stays_as_it_is(tmp_path: Path, key: str, value: str) -> None:
    recipe = combine(write(tmp_path, f'{key} = "{value}"'), ASKED | {key: None})
    assert getattr(recipe, key) == value


def test_a_flag_wins_and_its_path_is_relative_to_here(tmp_path: Path) -> None:
    recipe = combine(write(tmp_path, FULL), {"data": "here", "targets": ["tflite-int8"], "max_drop": 0.5, "seed": None})
    assert (recipe.data, recipe.targets, recipe.max_drop, recipe.seed) == ("here", ("tflite-int8",), 0.5, 7)


def test_without_a_crop_there_is_none() -> None:
    recipe = parse(ASKED | {"preprocess": GREY}, "r.toml")
    assert recipe.preprocess is not None and recipe.preprocess.crop is None


def test_every_key_says_what_it_takes() -> None:
    preprocess = {"color", "exif", "resize", "size", "filter", "crop", "mean", "std"}
    tune = {f"tune.{key}" for key in Tune.__struct_fields__}
    assert set(EXAMPLES) == {*ExportRecipe.__struct_fields__, *(f"preprocess.{key}" for key in preprocess), *tune}


@pytest.mark.parametrize("key", [key for key in EXAMPLES if key not in ("preprocess", "tune")])
def test_every_example_is_valid(tmp_path: Path, key: str) -> None:
    """The fix of an error must not be another error."""
    table, _, name = key.rpartition(".")
    lines = dict.fromkeys(("model", "data"), "") | {k: e for k, (_, e) in EXAMPLES.items() if "." not in k}
    text = "\n".join([EXAMPLES["model"][1], EXAMPLES["data"][1]])
    if table:
        text += f"\n[{table}]\n" + "\n".join(e for k, (_, e) in EXAMPLES.items() if k.startswith(f"{table}."))
    elif name not in ("model", "data"):
        text += "\n" + lines[key]
    if name == "keep":  # of what is pruned
        text += "\n" + lines["prune"]
    combine(write(tmp_path, text), {})


# --- what is wrong


@pytest.mark.parametrize(
    ("asked", "what", "fix"),
    [
        ({"modle": "x"}, "unknown key 'modle' in r.toml", "did you mean 'model'?"),
        ({"target": ["x"]}, "unknown key 'target' in r.toml", "did you mean 'targets'?"),
        ({"preprocess": GREY | {"color_": 1}}, "unknown key 'preprocess.color_' in r.toml", "did you mean 'color'?"),
        ({"model": 3}, "model is 3 in r.toml", 'write model = "timm:resnet18"'),
        ({"model": ""}, "model is ''", 'write model = "timm:resnet18"'),
        ({"data": ["a"]}, "data is ['a'] in r.toml", 'write data = "photos/"'),
        (
            {"targets": "tflite-int8"},
            "targets is 'tflite-int8' in r.toml",
            'write targets = ["tflite-int8", "onnx-int8"]',
        ),
        ({"targets": [1]}, "targets is [1] in r.toml", 'write targets = ["tflite-int8", "onnx-int8"]'),
        ({"targets": []}, "targets is empty", 'give one, such as "tflite-int8"'),
        ({"targets": ["a", "b", "a"]}, "the target a is named twice", "name each target once"),
        ({"checkpoint": True}, "checkpoint is True in r.toml", 'write checkpoint = "weights.safetensors"'),
        ({"calibrate": 0.5}, "calibrate is 0.5 in r.toml", "write calibrate = 256"),
        ({"calibrate": True}, "calibrate is True in r.toml", "write calibrate = 256"),
        ({"max_drop": "1"}, "max_drop is '1' in r.toml", "write max_drop = 1.0"),
        ({"max_drop": True}, "max_drop is True in r.toml", "write max_drop = 1.0"),
        ({"max_drop": -0.5}, "max_drop is -0.5", "use a number of 0 to 100, such as 1.0"),
        ({"max_drop": float("nan")}, "max_drop is nan", "use a number of 0 to 100, such as 1.0"),
        ({"seed": -1}, "seed is -1", "write seed = 0"),
        ({"input": "uint16"}, "input is 'uint16' in r.toml", 'write input = "uint8"'),
        ({"layout": "NHWC"}, "layout is 'NHWC' in r.toml", 'write layout = "nhwc"'),
        ({"seed": 1.5}, "seed is 1.5 in r.toml", "write seed = 0"),
        ({"preprocess": "imagenet"}, "preprocess is 'imagenet' in r.toml", "write [preprocess]"),
        ({"preprocess": GREY | {"color": "grey"}}, "preprocess.color is 'grey' in r.toml", 'write color = "RGB"'),
        ({"preprocess": GREY | {"size": [0, 28]}}, "preprocess.size is [0, 28] in r.toml", "write size = [256, 256]"),
        ({"preprocess": GREY | {"size": [28]}}, "preprocess.size is [28] in r.toml", "write size = [256, 256]"),
        (
            {"preprocess": GREY | {"mean": 0.5}},
            "preprocess.mean is 0.5 in r.toml",
            "write mean = [0.485, 0.456, 0.406]",
        ),
        (
            {"preprocess": GREY | {"std": [float("nan")]}},
            "preprocess.std is [nan] in r.toml",
            "write std = [0.229, 0.224, 0.225]",
        ),
    ],
)
def test_a_wrong_recipe_is_named_with_its_fix(asked: dict[str, Any], what: str, fix: str) -> None:
    said = wrong(ASKED | asked)
    assert (said[0], said[2]) == (what, fix) and said[1]


@pytest.mark.parametrize("key", sorted(GREY))
def test_no_part_of_the_preprocessing_is_guessed(key: str) -> None:
    said = wrong(ASKED | {"preprocess": {name: value for name, value in GREY.items() if name != key}})
    assert said[0] == f"preprocess.{key} is missing in r.toml" and f"add {key} = " in said[2]


@pytest.mark.parametrize(("key", "flag"), [("model", "give MODEL"), ("data", "give --data DATA")])
def test_model_and_data_must_be_given(key: str, flag: str) -> None:
    said = wrong({name: value for name, value in ASKED.items() if name != key})
    assert said[0] == f"no {key} is given" and flag in said[2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read\n  why: No such file or directory"),
        (b"\xff\xfe", "cannot be read\n  why: it is not UTF-8 text"),
        (b"model = \n", r"is not TOML\n  why: .*line 1.*\n  fix: correct that line"),
        (b"seed = 1\nseed = 2\n", "is not TOML"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=words):
        combine(tmp_path / "r.toml", ASKED)


TOML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*ExportRecipe.__struct_fields__, "x"]), TOML), st.booleans())
def test_whatever_is_written_it_is_a_recipe_or_a_recipe_error(asked: dict[str, Any], complete: bool) -> None:
    try:
        recipe = parse((ASKED if complete else {}) | asked, "r.toml")
    except RecipeError as error:
        assert re.fullmatch(r".+\n  why: .+\n  fix: .+", str(error), re.DOTALL)
    else:
        assert parse(msgspec.to_builtins(recipe), "again") == recipe


# --- pruning


def test_a_wish_is_a_share_that_is_left() -> None:
    assert parse(ASKED | {"prune": "2x"}, "r.toml").pruning == ("2x", "macs", 0.5)
    assert parse(ASKED | {"prune_params": "30%"}, "r.toml").pruning == ("30%", "parameters", 0.7)
    assert parse(ASKED | {"prune_to_latency": 0.6}, "r.toml").pruning == ("0.6 of the latency", "latency", 0.6)
    assert parse(ASKED, "r.toml").pruning is None


@pytest.mark.parametrize(
    ("asked", "what", "why"),
    [
        ({"prune": "1x"}, "prune is '1x'", "nothing would be removed"),
        ({"prune_params": "0%"}, "prune_params is '0%'", "nothing would be removed"),
        ({"prune": "0.5x"}, "prune is '0.5x'", "it is how many times fewer multiply-accumulates are wanted"),
        ({"prune": "0x"}, "prune is '0x'", "it is how many times fewer multiply-accumulates are wanted"),
        ({"prune": "half"}, "prune is 'half'", "it is how many times fewer multiply-accumulates are wanted"),
        ({"prune": "-2x"}, "prune is '-2x'", "it is how many times fewer multiply-accumulates are wanted"),
        ({"prune_params": "100%"}, "prune_params is '100%'", "it is the share of parameters to remove"),
        ({"prune": "2x", "prune_params": "5%"}, "prune and prune_params are both given", "each asks for another size"),
        ({"prune_to_latency": 1.0}, "prune_to_latency is 1.0", "it is the share of the time that may be left"),
        ({"prune_to_latency": 0.0}, "prune_to_latency is 0.0", "it is the share of the time that may be left"),
        ({"prune": "2x", "prune_to_latency": 0.5}, "prune and prune_to_latency are both given", "each asks for"),
        ({"keep": ["head"]}, "keep is given, and nothing is to be pruned", "it names layers that are not to be"),
        ({"prune": "2x", "prune_score": "best"}, "prune_score is 'best' in r.toml", "it is error, taylor, magnitude"),
    ],
)
def test_a_wish_that_is_none_is_refused(asked: dict[str, Any], what: str, why: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(ASKED | asked, "r.toml")
    assert caught.value.what == what and caught.value.why.startswith(why)
