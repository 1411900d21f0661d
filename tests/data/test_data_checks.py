"""The checkers pass good data, and notice each kind of bad data by its measure."""

from __future__ import annotations

import numpy as np
import pytest
from data_samples import GREY, picture
from numpy.typing import NDArray

from device_runner.manifest import Preprocess
from device_runner.preprocess import normalize, pixels
from shrink.data.checks import CalibrationStats, check_calibration, check_labels, neighbour_correlation
from shrink.data.images import Arrays, Images, from_source
from shrink.data.split import load
from shrink.data.stream import stream
from shrink.errors import CalibrationError, DataError

RGB = Preprocess(
    color="RGB",
    exif=True,
    resize="shorter",
    size=(40, 40),
    filter="bilinear",
    crop=(32, 32),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
Pixels = NDArray[np.uint8]


def check(images: list[Pixels], preprocess: Preprocess = GREY) -> None:
    """Measure 8-bit images, (H, W) or (H, W, C), as the stream would give them."""
    stats = CalibrationStats()
    for image in images:
        shaped = image if image.ndim == 3 else image[..., None]
        stats.add(normalize(shaped, preprocess).transpose(2, 0, 1)[None])
    check_calibration(stats, preprocess)


def photographs(count: int = 64, size: int = 32) -> list[Pixels]:
    return [picture(seed, size) for seed in range(count)]


def colour(count: int = 64) -> list[Pixels]:
    return [np.stack([picture(3 * seed + channel, 32) for channel in range(3)], -1) for seed in range(count)]


def noise(count: int, shape: tuple[int, ...]) -> list[Pixels]:
    return list(np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8))


def refused(words: str, images: list[Pixels], preprocess: Preprocess = GREY) -> None:
    with pytest.raises(CalibrationError, match=words) as caught:
        check(images, preprocess)
    assert caught.value.exit_code == 2 and len(str(caught.value).splitlines()) == 3


def test_smooth_pictures_pass() -> None:
    check(photographs())
    check(colour(), RGB)


def test_fashion_mnist_passes() -> None:
    calibration = load("fashion-mnist").calibration
    preprocess = Preprocess(
        color="L", exif=True, resize="exact", size=(28, 28), filter="bilinear", crop=None, mean=(0.286,), std=(0.353,)
    )
    stats = CalibrationStats()
    for batch in stream(calibration, preprocess):
        stats.add(batch.x)
    check_calibration(stats, preprocess)
    assert len(stats) == 256 and np.median(stats.correlation) > 0.7


def test_constant_images_are_refused() -> None:
    refused(
        "are constant(.|\n)*100% of 40 have one colour",
        [np.full((16, 16), value, np.uint8) for value in range(100, 140)],
    )


def test_a_few_blank_frames_pass_and_many_do_not() -> None:
    blank = [np.full((32, 32), value, np.uint8) for value in range(30)]
    check(photographs(64) + blank[:7])
    refused("11% of 72", photographs(64) + blank[:8])


def test_one_constant_channel_is_no_constant_image() -> None:
    images = colour()
    for image in images:
        image[..., 1] = 7
    check(images, RGB)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(value: float) -> None:
    x = np.stack([picture(seed) for seed in range(40)])[:, None].astype(np.float32) / 255
    x[7, 0, 3, 3] = value
    stats = CalibrationStats()
    stats.add(x)
    with pytest.raises(CalibrationError, match="1 values of 40 images are NaN or infinite"):
        check_calibration(stats, GREY)


@pytest.mark.parametrize(
    ("scale", "offset", "words"),
    [
        (255.0, 0.0, r"span 0\.25 to \d\d\d?\."),  # not divided by 255
        (2.0, -1.0, r"span -0\.\d\d to 0\.75"),  # normalized elsewhere, with another mean
        (1.0, 3.0, r"span 1\.\d\d to"),
    ],
)
def test_values_outside_the_range_of_training(scale: float, offset: float, words: str) -> None:
    x = np.stack(photographs())[:, None].astype(np.float32) / 255
    assert x.min() == 0 and x.max() == 1
    stats = CalibrationStats()
    stats.add(x * scale + offset)
    with pytest.raises(CalibrationError, match=f"outside the range of training(.|\n)*{words}"):
        check_calibration(stats, GREY)


def test_the_ends_of_the_range_pass() -> None:
    half = np.zeros((32, 32), np.uint8)
    half[16:] = 255
    check([*photographs(), half])


def test_masks_are_refused() -> None:
    refused("hardly any of the range(.|\n)*within 0.000 to 0.0", [image // 32 for image in photographs()])


def test_dark_images_with_a_light_pass() -> None:
    images = [image // 16 for image in photographs()]
    images[5][4:9, 4:9] = 200
    check(images)


@pytest.mark.parametrize("shape", [(32, 32), (224, 224)])
def test_uniform_noise(shape: tuple[int, int]) -> None:
    refused(r"random noise(.|\n)*in 100% of 40 images neighbouring pixels", noise(40, shape))


def test_gaussian_noise_of_an_imagenet_model() -> None:
    stats = CalibrationStats()
    stats.add(np.random.default_rng(0).normal(0, 0.3, (40, 3, 32, 32)).astype(np.float32))
    with pytest.raises(CalibrationError, match="random noise"):
        check_calibration(stats, RGB)


@pytest.mark.parametrize("side", [40, 48, 100, 224])
def test_noise_that_was_resized(side: int) -> None:
    from PIL import Image

    refused("random noise", [pixels(Image.fromarray(one), RGB) for one in noise(40, (side, side, 3))], RGB)


def test_a_little_noise_among_pictures_passes_and_more_does_not() -> None:
    check(photographs(30) + noise(10, (32, 32)))
    refused("in 26% of 42 images", photographs(31) + noise(11, (32, 32)))


def test_copies_of_one_image() -> None:
    refused(r"are the same(.|\n)*98% of 50 are copies", [picture(1)] * 50)


def test_no_images_at_all() -> None:
    refused("there are no calibration images", [])


def test_neighbour_correlation_of_known_images() -> None:
    stripes = np.tile(np.array([-1.0, 1.0], np.float32), (1, 64, 32))  # across -1, down +1
    board = stripes * np.where(np.arange(64) % 2, 1, -1).astype(np.float32)[None, :, None]  # both -1
    half = np.repeat(np.array([[-1.0, 1.0]], np.float32), 2048, axis=1).reshape(1, 1, -1).repeat(64, 1)
    assert neighbour_correlation(stripes) == pytest.approx(0, abs=0.02)
    assert neighbour_correlation(board) == pytest.approx(-1, abs=0.02)
    assert neighbour_correlation(half) == pytest.approx(1, abs=0.02)
    assert np.isnan(neighbour_correlation(np.ones((3, 8, 8), np.float32)))


def labelled(labels: list[int], classes: list[str] | None) -> Images:
    pixels = np.zeros((len(labels), 4, 4), np.uint8)
    return from_source(
        "mine", Arrays(pixels), [str(index) for index in range(len(labels))], labels=labels, classes=classes
    )


def test_matching_labels_pass() -> None:
    check_labels(3, labelled([0, 1], ["a", "b", "c"]))
    check_labels(1000, labelled([0, 999], None))


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        ([0, 1], ["a", "b"], r"gives 3 scores and mine has 2 classes(.|\n)*\?num_classes=2"),
        ([0, 1], ["a", "b", "c", "d"], "gives 3 scores and mine has 4 classes"),
        ([0, 3], None, "gives 3 scores and mine has labels up to 3(.|\n)*0 to 2"),
    ],
)
def test_labels_of_another_model(labels: list[int], classes: list[str] | None, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        check_labels(3, labelled(labels, classes))
    assert caught.value.exit_code == 2
