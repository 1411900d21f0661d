"""The restated transforms against the libraries' own, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from device_runner.manifest import Preprocess
from device_runner.preprocess import decode, pixels, prepare
from shrink.errors import ModelError
from shrink.models import zoo
from shrink.models.torchvision_compat import import_torchvision
from shrink.models.transforms import check, from_timm, from_torchvision, input_shape

SIZES = ((300, 451), (613, 280), (97, 64))  # width, height; the last is enlarged
TORCHVISION = (
    "mobilenet_v2",
    "swin_t",
    "vit_b_16",
    "efficientnet_b0",
    "inception_v3",
    "convnext_tiny",
    "mobilenet_v3_small",
)
TIMM = (
    "deit_tiny_patch16_224",  # crop_pct 0.9
    "mobilenetv4_conv_small",  # 0.875 bicubic, 0.95 elsewhere
    "efficientnet_lite0",
    "vit_base_patch16_sapiens2",  # squash, not square
    "volo_d5_448",  # crop_pct 1.15: padded
    "levit_128",
)


def png(width: int, height: int) -> bytes:
    """A smooth random image as a file."""
    rng = np.random.default_rng(width * height)
    small = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def assert_same(preprocess: Preprocess, library: torch.nn.Module) -> None:
    """Ours and the library's give the same floats, and so the same 8-bit pixels."""
    for size in SIZES:
        data = png(*size)
        expected = library(Image.open(io.BytesIO(data)).convert("RGB")).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(prepare(data, preprocess), expected, atol=1e-6)
        undone = np.rint((expected * np.array(preprocess.std) + np.array(preprocess.mean)) * 255)
        assert np.abs(pixels(decode(data), preprocess) - undone).max() <= 1
        assert expected.shape == tuple(input_shape(preprocess)[index] for index in (2, 3, 1))


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    transforms = import_torchvision().models.get_model_weights(name).DEFAULT.transforms()
    assert_same(from_torchvision(transforms), transforms)


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    timm = zoo.import_timm()
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict())
    library = timm.data.create_transform(**config, is_training=False)
    assert_same(from_timm(config), library)


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 0.965, 1.0])
@pytest.mark.parametrize("side", [160, 224, 299])
def test_every_scale_is_timms_to_the_integer(mode: str, crop_pct: float, side: int) -> None:
    config = {
        "input_size": (3, side, side),
        "crop_pct": crop_pct,
        "crop_mode": mode,
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    resize = zoo.import_timm().data.create_transform(**config, is_training=False).transforms[0].size
    assert from_timm(config).size == (tuple(resize) if mode == "squash" else (resize, resize))


def test_all_models_of_both_libraries_have_a_transform_or_say_why() -> None:
    models = import_torchvision().models
    for name in zoo.names("torchvision"):
        from_torchvision(models.get_model_weights(name).DEFAULT.transforms())
    timm, refused = zoo.import_timm(), []
    for name in zoo.names("timm"):
        config = timm.data.resolve_data_config({}, pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict())
        try:
            from_timm(config)
        except ModelError as error:
            refused.append((name, error.what))
    assert all("border" in what for _, what in refused) and len(refused) < 10, refused


GOOD = Preprocess(
    color="RGB",
    exif=True,
    resize="shorter",
    size=(40, 40),
    filter="bilinear",
    crop=(32, 32),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("mean", (0.5,), "mean has 1 numbers for 3 channels"),
        ("std", (0.5, 0.5), "std has 2 numbers for 3 channels"),
        ("std", (0.5, 0.0, 0.5), "must be above 0"),
        ("size", (40, 41), "must be square"),
        ("crop", None, "images of many shapes"),
    ],
)
def test_a_preprocessing_that_contradicts_itself_is_refused(field: str, value: object, why: str) -> None:
    values = {name: getattr(GOOD, name) for name in GOOD.__struct_fields__}
    with pytest.raises(ModelError, match=why):
        check(Preprocess(**(values | {field: value})))
    assert check(GOOD) is GOOD
