"""`shrink debug`: a bundle is made again from its own recipe and taken apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from pipeline_samples import MODELS, Exported
from run_cli import Ran

from device_runner.bundle import Bundle, open_bundle
from device_runner.golden import read_golden
from device_runner.preprocess import encode, prepare
from shrink.debug import inside
from shrink.debug.layers import LayerError
from shrink.debug.parity import Step
from shrink.errors import RequestError
from shrink.steps.debugging import _check_weights, _culprit, _recipe

Command = Callable[..., Ran]


def test_a_bundle_is_taken_apart_step_by_step_and_layer_by_layer(exported: Exported, command: Command) -> None:
    ran = command("debug", exported.out / "onnx-int8", "--model", f"{MODELS}:good", "--json")
    found = json.loads(ran.out)
    assert ran.code == 0 and found["target"] == "onnx-int8"
    errors = {f"{one['what']} against {one['against']}": one["error"] for one in found["steps"]}
    for fmt in ("tflite", "onnx"):
        assert errors[f"{fmt}-fp32 file against the model"] < 1e-4
        assert 1e-4 < errors[f"{fmt}-int8 simulated against the model"] < 0.1
        assert errors[f"{fmt}-int8 file against the simulation"] < 0.05
    assert errors["the bundle's file against the file made again"] < 0.05
    layers = found["layers"]
    assert layers and layers == sorted(layers, key=lambda one: -one["scores"])
    assert {one["layer"] for one in layers} == {"image", "measure", "name"}
    assert all(one["file_db"] is None or one["file_db"] > 25 for one in layers)
    assert any(one["file_db"] for one in layers)  # some value was found in the file
    assert found["culprit"][0] == "no step loses more than is normal for it"
    assert "[6/6] look at every layer" in ran.err


def test_both_files_hold_the_same_values_on_the_same_codes(exported: Exported) -> None:
    """Both are printed from one plan; a value differs by a code at most."""
    found = {}
    for target in ("tflite-int8", "onnx-int8"):
        bundle = open_bundle(exported.out / target)
        manifest = bundle.manifest
        image = prepare(read_golden(bundle.files["golden.npz"]).image(0), manifest.preprocess)
        found[target] = inside.RUNS[manifest.format](bundle.model)(encode(image, manifest.input))
    shared = [
        (one, other)
        for one in found["onnx-int8"]
        for other in found["tflite-int8"]
        if math.isclose(one.scale, other.scale, rel_tol=1e-5)
        and one.zero == other.zero
        and one.real.size == other.real.size
    ]
    assert shared
    for one, other in shared:
        apart = np.abs(np.sort(one.real.ravel()) - np.sort(other.real.ravel())).max()  # whatever the layout
        assert apart <= 1.01 * one.scale


def changed(exported: Exported, target: str = "onnx-int8", **provenance: Any) -> Bundle:
    """The bundle with another provenance."""
    bundle = open_bundle(exported.out / target)
    manifest = msgspec.structs.replace(bundle.manifest, provenance=bundle.manifest.provenance | provenance)
    return Bundle(bundle.path, manifest, bundle.files)


def test_code_that_a_bundle_names_runs_only_if_the_user_names_it_too(exported: Exported, command: Command) -> None:
    ran = command("debug", exported.out / "onnx-int8")
    assert ran.code == 2 and ran.out == ""
    assert (
        "names code to run" in ran.problem[0] and ran.problem[2] == f"if you trust that code: --model '{MODELS}:good'"
    )


def test_a_model_of_a_library_needs_no_such_sign(exported: Exported) -> None:
    recipe = exported.report and open_bundle(exported.out / "onnx-int8").manifest.provenance["recipe"]
    bundle = changed(exported, recipe=recipe | {"model": "timm:resnet18"})
    assert _recipe(bundle, None).model == "timm:resnet18"
    assert _recipe(bundle, None).targets == ("tflite-int8", "onnx-int8")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (None, "cannot be made again\n  why: its provenance holds no recipe"),
        ({"model": "timm:x", "data": "d", "colour": 1}, "unknown key 'colour'"),
        ({"model": "timm:x", "data": "d", "targets": ["tflite-fp32"]}, "contradicts itself"),
    ],
)
def test_a_recipe_that_cannot_be_followed(exported: Exported, recipe: object, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        _recipe(changed(exported, recipe=recipe), None)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 3


def test_other_weights_than_those_of_the_export(exported: Exported) -> None:
    job = cast(Any, SimpleNamespace(model=SimpleNamespace(checkpoint_sha256="a" * 64)))
    with pytest.raises(RequestError, match="not the one of the export"):
        _check_weights(job, changed(exported, checkpoint_sha256="b" * 64))
    _check_weights(job, changed(exported, checkpoint_sha256="a" * 64))


def test_a_damaged_bundle_and_none_at_all(exported: Exported, command: Command, tmp_path: Path) -> None:
    for name in ("manifest.json", "labels.txt", "golden.npz", "model.onnx"):
        (tmp_path / name).write_bytes((exported.out / "onnx-int8" / name).read_bytes())
    (tmp_path / "labels.txt").write_text("other\n")
    assert command("debug", tmp_path).problem[0].startswith("labels.txt ")
    assert command("debug", tmp_path / "none").code == 1


def test_a_layer_that_the_file_has_wrong_is_named() -> None:
    def layer(name: str, order: int, file_db: float | None) -> LayerError:
        return LayerError(name, name, "conv2d", 35.0, 30.0, 0.1, 5.0, "codes", order, file_db)

    found = _culprit((), (layer("c", 3, 5.0), layer("a", 1, 24.0), layer("b", 2, 7.0), layer("d", 0, None)))
    assert found[1] == "culprit in the file: b (conv2d): its value there is 7.0 dB from the simulation's"
    assert not any("in the file" in line for line in _culprit((), (layer("a", 1, 24.0), layer("d", 0, None))))


def test_the_first_step_that_is_not_sound_is_the_culprit() -> None:
    steps = tuple(Step(name, "x", error, 0.0, 1.0, 0.1) for name, error in (("a", 0.0), ("b", 0.3), ("c", 0.9)))
    assert _culprit(steps, ()) == ("culprit step: b against x: error 30.00%, 10.0% would be normal",)
