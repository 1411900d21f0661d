"""A model by its name: what is loaded, and what is said when it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from device_runner.manifest import Preprocess
from shrink.errors import ModelError
from shrink.models import Model, load
from shrink.models.torchvision_compat import import_torchvision

GREY = Preprocess(
    color="L", exif=True, resize="exact", size=(8, 8), filter="bilinear", crop=None, mean=(0.5,), std=(0.25,)
)


def test_torchvision_model() -> None:
    model = load("torchvision:mobilenet_v2")
    assert (model.input_shape, model.outputs, model.weights) == ((1, 3, 224, 224), 1000, "random")
    assert model.labels is not None and model.labels[:2] == ("tench", "goldfish")
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_timm_model_of_another_size() -> None:
    model = load("timm:vit_tiny_patch16_224?img_size=192&num_classes=5")
    assert (model.input_shape, model.outputs, model.labels) == ((1, 3, 192, 192), 5, None)


def test_img_size_of_a_timm_model_that_takes_any() -> None:
    assert load("timm:mobilenetv3_small_050?img_size=128").input_shape == (1, 3, 128, 128)


def test_timm_labels() -> None:
    labels = load("timm:mobilenetv3_small_050").labels
    assert labels is not None and len(labels) == 1000 and labels[0].startswith("tench")


def test_auxiliary_heads_are_silent_in_eval_mode() -> None:
    assert load("torchvision:googlenet?init_weights=false").outputs == 1000


def test_random_weights_are_the_same_in_every_run() -> None:
    first = load("timm:mobilenetv3_small_050").module.state_dict()
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    second = load("timm:mobilenetv3_small_050").module.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_file_with_arguments(tiny: str) -> None:
    model = load(f"{tiny}:make?num_classes=5")
    assert (model.outputs, model.input_shape, model.weights) == (5, (1, 1, 8, 8), "factory")
    assert model.preprocess == Preprocess(
        color="L", exif=True, resize="shorter", size=(8, 8), filter="bilinear", crop=(8, 8), mean=(0.5,), std=(0.25,)
    )


def test_a_file_hides_no_module_of_its_name(tmp_path: Path, tiny: str) -> None:
    (tmp_path / "json.py").write_text("from layers import one\ndef make():\n    return one()\n")
    (tmp_path / "layers.py").write_text(Path(tiny).read_text() + "\ndef one():\n    return make(4)\n")
    path = list(sys.path)
    assert load(f"{tmp_path}/json.py:make").outputs == 4  # and the file imports its neighbour
    assert sys.path == path
    assert sys.modules["json"].__name__ == "json" and hasattr(sys.modules["json"], "dumps")
    del sys.modules["layers"]


def test_a_module(tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_models.py").write_text(Path(tiny).read_text())
    monkeypatch.chdir(tmp_path)
    assert load("shop_models:make?num_classes=2").outputs == 2
    del sys.modules["shop_models"]


def test_a_checkpoint_changes_the_answer(tmp_path: Path, tiny: str) -> None:
    fresh = load(f"{tiny}:make")
    state = {key: torch.ones_like(tensor) for key, tensor in fresh.module.state_dict().items()}
    torch.save(state, tmp_path / "a.pt")
    model = load(f"{tiny}:make", checkpoint=tmp_path / "a.pt")
    assert model.weights == "checkpoint" and len(model.checkpoint_sha256 or "") == 64
    # input 0: conv gives its bias 1; batch norm (1 - 1) / 1 * 1 + 1 = 1; linear 4 * 1 + 1 = 5
    torch.testing.assert_close(model.module(torch.zeros(1, 1, 8, 8)), torch.full((1, 3), 5.0), atol=1e-4, rtol=0)


def test_a_given_preprocessing_wins(tiny: str) -> None:
    assert load(f"{tiny}:without_cfg", preprocess=GREY).preprocess == GREY


BAD = [
    ("torchvision:mobilenet_v9", "did you mean 'mobilenet_v[23]"),
    ("torchvision:fcn_resnet50", "no classification model 'fcn_resnet50'"),
    ("torchvision:zzz", "list the names with: python -c"),
    ("torchvision:resnet18?weights=DEFAULD", "did you mean 'DEFAULT'"),
    ("torchvision:resnet18?colour=red", "unexpected keyword argument 'colour'"),
    ("timm:mobilenetv3_smal_100", "did you mean 'mobilenetv3_small_100'"),
    ("timm:resnet18?in_chans=1", "takes 1 channels and its transform makes 3"),
    ("timm:mobilenetv3_small_050?img_size=big", "is not a whole number"),
    ("timm:resnet18.nope", "did you mean 'resnet18'"),
    ("torchvison:resnet18", "did you mean 'torchvision'"),
    ("no.such.package:make", "there is no Python module 'no.such.package'"),
    ("missing.py:make", "there is no file missing.py"),
    ("{tiny}:mak", "has no factory 'mak'(.|\n)*did you mean 'make'"),
    ("{tiny}:NUMBER", "it is a int, not a function"),
    ("{tiny}:make?num_clases=3", "did you mean 'num_classes'"),
    ("{tiny}:without_cfg?a=1", "it takes no arguments"),
    ("{tiny}:without_cfg", r"no `default_cfg`(.|\n)*give \[preprocess\] in the recipe"),
    ("{tiny}:half_a_cfg", "lacks crop_pct, interpolation"),
    ("{tiny}:two_outputs", "gives a tuple"),
    ("{tiny}:feature_map", r"gives a tensor of shape \(1, 3, 2, 2\)"),
    ("{tiny}:no_module", "gives a dict"),
    ("{tiny}:broken", r"KeyError: 'no such layer' \(.*tiny.py, line \d+\)"),
]


@pytest.mark.parametrize(("spec", "words"), BAD, ids=[spec for spec, _ in BAD])
def test_what_cannot_be_loaded(spec: str, words: str, tiny: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load(spec.replace("{tiny}", tiny))
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import torch\ndef make(:\n", r"SyntaxError: .* line 2\)"),
        ("\n\nimport no_such_thing\n", r"ModuleNotFoundError: .*no_such_thing.* line 3\)"),
        ("import sys\nsys.exit('bye')\n", r"SystemExit: bye .* line 2\)"),
        ("def make():\n    return helper()\ndef helper():\n    return 1 / 0\n", r"ZeroDivisionError: .* line 4\)"),
    ],
)
def test_errors_in_a_file_name_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(ModelError, match=words) as caught:
        load(f"{tmp_path}/net.py:make")
    assert "net.py" in str(caught.value)


def test_an_input_the_model_refuses(tiny: str) -> None:
    rgb = Preprocess(
        color="RGB",
        exif=True,
        resize="exact",
        size=(8, 8),
        filter="bilinear",
        crop=None,
        mean=(0.5,) * 3,
        std=(1.0,) * 3,
    )
    with pytest.raises(ModelError, match=r"does not take an input of shape \(1, 3, 8, 8\)"):
        load(f"{tiny}:make", preprocess=rgb)


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ModelError, match=r"could not be fetched(.|\n)*--checkpoint FILE"):
        load("torchvision:squeezenet1_1?weights=DEFAULT")


def test_torchvision_is_imported_once() -> None:
    assert import_torchvision() is import_torchvision() is sys.modules["torchvision"]


def test_the_public_names() -> None:
    import shrink.models

    assert shrink.models.__all__ == ["Model", "load", "resized"]
    assert isinstance(load("torchvision:squeezenet1_1"), Model)
