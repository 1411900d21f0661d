"""The doctor is quiet on good data, and finds what is done to it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from doctor_samples import MODELS, PREPROCESS, pictures, recipe
from PIL import Image

import shrink.data
from device_runner.manifest import Preprocess
from shrink.doctor.copies import thumbnail
from shrink.doctor.findings import Finding
from shrink.errors import CheckpointError, DataError
from shrink.progress import Quiet
from shrink.recipe import ExportRecipe
from shrink.steps.doctoring import Examination, examine

Arrays = dict[str, np.ndarray]
Wrong = Callable[..., dict[str, Finding]]

REPOSITORY = Path(shrink.data.__file__).parents[2]
GREY = Preprocess(
    color="L", exif=True, resize="exact", size=(28, 28), filter="bilinear", crop=None, mean=(0.286,), std=(0.353,)
)


def test_good_data_is_not_accused(wrong: Wrong) -> None:
    assert wrong() == {}


def test_fashion_mnist_is_not_accused() -> None:
    asked = ExportRecipe(
        model=f"{REPOSITORY}/recipes/demo/models.py:cnn",
        checkpoint=f"{REPOSITORY}/recipes/demo/cnn.safetensors",
        data="fashion-mnist",
        preprocess=GREY,
    )
    found = examine(asked, Quiet())
    assert [one for one in found.findings if one.level != "ok"] == [] and found.level == "ok"
    assert (found.calibration_images, found.evaluation_images) == (256, 5830)


# --- prepared in another way than in training: every set is changed alike, as a user's whole folder is


WAYS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "BGR": (lambda x: x[..., ::-1], "red and blue exchanged"),
    "(W, H)": (lambda x: x.transpose(0, 2, 1, 3), "height and width exchanged"),
    "upside down": (lambda x: x[:, ::-1], "upside down"),
    "negative": (lambda x: 255 - x, "as negatives"),
    "planes": (lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(x.shape), "read plane by plane"),
}


@pytest.mark.parametrize("way", WAYS)
def test_images_prepared_in_another_way_are_an_error_that_names_it(wrong: Wrong, good: Arrays, way: str) -> None:
    change, words = WAYS[way]
    # reading planes as pixels makes nine small images of one: rough, and that is said, too
    found = wrong(x_train=change(good["x_train"]), x_test=change(good["x_test"]))["preprocessing"]
    assert found.level == "error" and words in found.what and "300" not in found.what
    assert found.why and found.fix


@pytest.mark.parametrize(
    ("mean", "std", "level"),
    [((0.5,) * 3, (0.5,) * 3, "error"), ((0.0,) * 3, (1.0,) * 3, "error"), ((0.0,) * 3, (1 / 255,) * 3, "error")],
)
def test_another_normalization_is_found_by_the_answers(
    good: Arrays, tmp_path: Path, mean: tuple[float, ...], std: tuple[float, ...], level: str
) -> None:
    np.savez(tmp_path / "data.npz", **good)
    other = Preprocess(
        **{**{f: getattr(PREPROCESS, f) for f in PREPROCESS.__struct_fields__}, "mean": mean, "std": std}
    )
    findings = {f.check: f for f in examine(recipe(tmp_path / "data.npz", preprocess=other), Quiet()).findings}
    found = findings["preprocessing"]
    assert found.level == level
    assert "ImageNet's" in found.what and "mean = [0.485, 0.456, 0.406]" in found.fix


def test_calibration_images_of_their_own_are_compared_with_those_of_the_evaluation(
    good: Arrays, tmp_path: Path
) -> None:
    np.savez(tmp_path / "data.npz", **good)
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for index, image in enumerate(pictures(150, 9)):
        Image.fromarray(image[..., ::-1]).save(swapped / f"{index}.png")
    found = {f.check: f for f in examine(recipe(tmp_path / "data.npz", calibrate=str(swapped)), Quiet()).findings}
    assert found["preprocessing"].level == "ok"  # the evaluation images are right
    assert found["channels"].level == "error" and "red and blue exchanged" in found["channels"].what


def test_random_weights_cannot_tell(good: Arrays, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **good)
    asked = ExportRecipe(model="timm:test_resnet?num_classes=6", data=str(tmp_path / "data.npz"))
    found = {f.check: f for f in examine(asked, Quiet()).findings if f.level != "ok"}
    assert found.keys() == {"preprocessing", "size"}
    assert found["preprocessing"].what == "the weights are random"
    assert found["size"].why.startswith("the smallest is 32x32")  # for 160 x 160


# --- labels


def test_labels_in_another_order(wrong: Wrong, good: Arrays) -> None:
    order = np.array([3, 0, 4, 1, 5, 2])
    found = wrong(y_test=order[good["y_test"]])["numbering"]
    assert found.level == "error" and "another order" in found.what


def test_labels_that_are_off_by_one(wrong: Wrong, good: Arrays) -> None:
    keep = good["y_test"] > 0
    found = wrong(x_test=good["x_test"][keep], y_test=good["y_test"][keep] - 1)["numbering"]
    assert found.level == "error" and "if every label is raised by 1" in found.what


def test_labels_that_mean_nothing(wrong: Wrong, good: Arrays) -> None:
    found = wrong(y_test=np.random.default_rng(0).permutation(good["y_test"]))["numbering"]
    assert found.level == "error" and found.why == "that is no more than chance"


def test_a_class_without_images(wrong: Wrong, good: Arrays) -> None:
    keep = good["y_test"] != 4
    found = wrong(x_test=good["x_test"][keep], y_test=good["y_test"][keep])
    assert found.keys() == {"classes", "evaluation"}
    assert found["classes"].what == "5 of 6 classes occur among 250 evaluation images"
    assert "class 4" in found["classes"].why


def test_a_class_that_has_most_images(wrong: Wrong, good: Arrays) -> None:
    rows = np.concatenate(
        [np.flatnonzero(good["y_test"] == 2), *(np.flatnonzero(good["y_test"] == k)[:4] for k in range(6))]
    )
    x, y = good["x_test"][rows], good["y_test"][rows]
    more = np.concatenate([x, good["x_train"][good["y_train"] == 2]]), np.concatenate([y, [2] * 27])
    found = wrong(x_test=more[0], y_test=more[1])["balance"]
    assert found.level == "warning" and "class 2" in found.what


# --- pictures


def some(images: np.ndarray, share: float, by: np.ndarray) -> np.ndarray:
    """Images of which that share is replaced."""
    changed = images.copy()
    count = round(share * len(images))
    changed[:count] = by[:count]
    return changed


def noise(count: int, side: int = 32) -> np.ndarray:
    """Random pixels, made larger to 32 x 32."""
    small = np.random.default_rng(3).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((32, 32), Image.Resampling.BILINEAR)) for x in small])


def full(count: int, level: int) -> np.ndarray:
    return np.full((count, 32, 32, 3), level, np.uint8)


def test_random_noise_is_an_error_as_in_an_export(wrong: Wrong, good: Arrays) -> None:
    found = wrong(x_train=noise(160))
    assert {"noise", "export"} <= found.keys() and {found[check].level for check in ("noise", "export")} == {"error"}
    assert found["export"].what == "calibration images are random noise"


def test_a_little_noise_is_a_warning(wrong: Wrong, good: Arrays) -> None:
    found = wrong(x_train=some(good["x_train"], 0.1, noise(160)))
    assert found.keys() == {"noise"} and found["noise"].level == "warning"
    assert found["noise"].what.startswith("16 of 160 calibration images")


def test_noise_that_was_made_smooth_is_found_beside_real_images(wrong: Wrong) -> None:
    """Its neighbouring pixels go together, its regions do not."""
    smooth = noise(160, 24)
    found = wrong(x_train=smooth)["structure"]
    assert found.level == "error" and found.what.startswith("9")


@pytest.mark.parametrize(("level", "check"), [(0, "black"), (3, "black"), (252, "white"), (255, "white")])
@pytest.mark.parametrize(("share", "grade"), [(0.05, "warning"), (0.6, "error")])
def test_covered_and_dazzled_cameras(
    wrong: Wrong, good: Arrays, level: int, check: str, share: float, grade: str
) -> None:
    found = wrong(x_test=some(good["x_test"], share, full(300, level)))
    assert found[check].level == grade and f"{round(300 * share)} of 300 evaluation images" in found[check].what
    assert found["constant"].level == ("warning" if share < 0.1 else "error")


def test_constant_images_of_another_colour(wrong: Wrong, good: Arrays) -> None:
    found = wrong(x_train=some(good["x_train"], 0.05, full(160, 128)))
    assert {check: f.level for check, f in found.items()} == {"constant": "warning"}


def test_some_saturated_images(wrong: Wrong, good: Arrays) -> None:
    bright = good["x_test"].copy()
    bright[:, :20] = 255
    found = wrong(x_test=some(good["x_test"], 0.1, bright))
    assert found["saturated"].level == "warning" and "30 of 300 evaluation" in found["saturated"].what


def test_grey_images_for_a_model_of_colours(wrong: Wrong, good: Arrays) -> None:
    grey = good["x_train"].mean(3, keepdims=True).astype(np.uint8).repeat(3, 3)
    assert wrong(x_train=grey)["colour"].what == "160 of 160 calibration images are grey"


def test_a_darker_calibration_set_is_unlike_the_evaluation(wrong: Wrong, good: Arrays) -> None:
    found = wrong(x_train=good["x_train"] // 2)["alike"]
    assert found.level == "warning" and "brightness" in found.what


def test_images_much_smaller_than_the_input(good: Arrays, tmp_path: Path) -> None:
    tiny = {key: value[:, ::3, ::3] if key.startswith("x") else value for key, value in good.items()}
    np.savez(tmp_path / "data.npz", **tiny)
    findings = {f.check: f for f in examine(recipe(tmp_path / "data.npz"), Quiet()).findings if f.level != "ok"}
    assert findings["size"].why.startswith("the smallest is 11x11")


# --- copies


def again(images: np.ndarray, quality: int = 85) -> np.ndarray:
    """The images, saved as JPEG."""
    made = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        made.append(np.asarray(Image.open(buffer)))
    return np.stack(made)


def test_calibration_images_that_are_evaluated_though_saved_anew(wrong: Wrong, good: Arrays) -> None:
    leaked = again(good["x_train"])
    found = wrong(
        x_test=np.concatenate([good["x_test"], leaked]), y_test=np.concatenate([good["y_test"], good["y_train"]])
    )
    assert found.keys() == {"leakage"}
    assert found["leakage"].level == "warning" and "train/" in found["leakage"].why and "test/" in found["leakage"].why
    assert int(found["leakage"].what.split()[0]) > 50


@pytest.mark.parametrize(("share", "level"), [(0.3, "warning"), (0.8, "error")])
def test_frames_of_one_video(wrong: Wrong, good: Arrays, share: float, level: str) -> None:
    frames = again(np.repeat(good["x_train"][-1:], 160, 0)).astype(int)
    frames = np.clip(frames + np.random.default_rng(0).integers(-6, 7, (160, 1, 1, 1)), 0, 255).astype(np.uint8)
    assert wrong(x_train=some(good["x_train"], share, frames))["copies"].level == level


def test_evaluation_images_that_count_twice(wrong: Wrong, good: Arrays) -> None:
    twice = np.concatenate([good["x_test"], good["x_test"][:9]]), np.concatenate([good["y_test"], good["y_test"][:9]])
    found = wrong(x_test=twice[0], y_test=twice[1])
    assert found.keys() == {"repeated"} and found["repeated"].what.startswith("9 of 309")


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 33, 47), (3, 224, 224), (1, 5, 9)])
def test_a_thumbnail_is_the_mean_of_its_areas(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    small = thumbnail(image)
    assert small.shape == (min(16, shape[1]), min(16, shape[2]))
    rows, columns = (np.arange(17) * side // 16 for side in shape[1:])
    if shape[1] >= 16:
        area = image[:, rows[3] : rows[4], columns[7] : columns[8]]
        np.testing.assert_allclose(small[3, 7], area.mean(), rtol=1e-5)


# --- too few, unreadable


def test_too_few_images_are_a_warning_or_refused(wrong: Wrong, good: Arrays) -> None:
    found = wrong(x_train=good["x_train"][:40], y_train=good["y_train"][:40])
    assert found.keys() == {"calibration"}
    found = wrong(x_test=good["x_test"][:120], y_test=good["y_test"][:120])
    assert found.keys() == {"evaluation"} and "add about 1" in found["evaluation"].fix
    with pytest.raises(DataError, match="only 20 calibration images"):
        wrong(x_train=good["x_train"][:20], y_train=good["y_train"][:20])


def test_a_damaged_image_is_named(good: Arrays, tmp_path: Path) -> None:
    for part, images in (("train", good["x_train"]), ("val", good["x_test"])):
        for index, image in enumerate(images):
            path = tmp_path / part / f"class {index % 6}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    (tmp_path / "val" / "class 3" / "9.png").write_bytes(b"\x89PNG cut")
    found = {f.check: f for f in examine(recipe(tmp_path), Quiet()).findings if f.level != "ok"}
    assert found.keys() == {"readable"} and "val/class 3/9.png: the image cannot be decoded" in found["readable"].why


def test_what_an_export_refuses_is_refused_here() -> None:
    with pytest.raises(DataError, match="there is no data"):
        examine(recipe(Path("nowhere")), Quiet())
    with pytest.raises(CheckpointError):
        examine(ExportRecipe(model=f"{MODELS}:nearest", data="fashion-mnist", checkpoint="none.pt"), Quiet())


def test_memory_does_not_grow_with_the_images(examined: Callable[..., Examination], good: Arrays) -> None:
    """A few numbers per set, 1 kB per calibration image, a hash per evaluation image."""
    import tracemalloc

    def peak(times: int) -> int:
        x, y = np.concatenate([good["x_test"]] * times), np.concatenate([good["y_test"]] * times)
        tracemalloc.start()
        examined(x_test=x, y_test=y)
        most = tracemalloc.get_traced_memory()[1] - x.nbytes
        tracemalloc.stop()
        return most

    assert peak(6) < 1.5 * peak(2)
