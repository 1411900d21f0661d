"""What each kind of data gives, and what is said when it gives nothing."""

from __future__ import annotations

import csv
import io
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from data_samples import folder, listing, picture, write
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shrink.data.images import Images
from shrink.data.sources import BUILTIN, read
from shrink.errors import DataError


def pixels(images: Images, index: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(images.encoded(index))))


def labels(images: Images) -> list[int]:
    assert images.labels is not None
    return images.labels.tolist()


def test_class_folders(tmp_path: Path) -> None:
    folder(tmp_path, {"dog": 2, "cat": 1})
    write(tmp_path / "dog" / "more" / "x.PNG", 9)
    images = read(str(tmp_path)).evaluation
    assert images.classes == ("cat", "dog")
    assert images.refs == ("cat/000.png", "dog/000.png", "dog/001.png", "dog/more/x.PNG")
    assert labels(images) == [0, 1, 1, 1]
    assert (pixels(images, 3) == picture(9)).all()


def test_train_and_val_number_their_classes_together(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"ant": 1, "bee": 1, "cow": 1})
    folder(tmp_path / "val", {"bee": 1, "cow": 2}, first=9)
    parts = read(str(tmp_path))
    assert parts.train is not None
    assert parts.evaluation.classes == parts.train.classes == ("ant", "bee", "cow")
    assert labels(parts.evaluation) == [1, 2, 2]
    assert parts.evaluation.refs[0] == "val/bee/000.png"


@pytest.mark.parametrize("part", ["val", "valid", "validation", "test"])
def test_names_of_the_evaluation_part(tmp_path: Path, part: str) -> None:
    folder(tmp_path / "train", {"ant": 1})
    folder(tmp_path / part, {"ant": 2})
    assert read(str(tmp_path)).evaluation.refs == (f"{part}/ant/000.png", f"{part}/ant/001.png")


def test_train_may_be_a_class(tmp_path: Path) -> None:
    folder(tmp_path, {"bus": 1, "test": 1, "train": 1})
    assert read(str(tmp_path)).evaluation.classes == ("bus", "test", "train")


def test_what_is_passed_over_is_noted(tmp_path: Path) -> None:
    folder(tmp_path, {"cat": 2})
    (tmp_path / "cat" / "x.webp").touch()
    (tmp_path / "cat" / ".hidden.png").touch()
    (tmp_path / "empty").mkdir()
    write(tmp_path / "loose.png", 5)
    parts = read(str(tmp_path))
    assert len(parts.evaluation) == 2 and parts.evaluation.classes == ("cat", "empty")
    assert [note.split(" in ")[0] for note in parts.notes] == ["1 files", "1 images", "1 class folders"]
    assert "x.webp" in parts.notes[0] and "empty" in parts.notes[2]


def test_a_flat_folder_is_not_labelled(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    assert read(str(tmp_path)).evaluation.labels is None


def test_csv_with_numbers_and_further_columns(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a b.png", 1)
    write(tmp_path / "c.png", 2)
    table = listing(tmp_path / "t.csv", ["name,path,label,licence", '"a, b",sub/a b.png,3,CC', ",c.png,0,CC"])
    images = read(str(table)).evaluation
    assert (images.refs, labels(images), images.classes) == (("sub/a b.png", "c.png"), [3, 0], None)
    assert [images.label_name(label) for label in (3, 0)] == ["a, b", "class 0"]
    assert (pixels(images, 1) == picture(2)).all()


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6)


@given(st.lists(WORDS.filter(lambda word: not word.isdigit()), min_size=1, max_size=8))
def test_csv_names_come_back(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "a.png", 1)
        table = Path(place) / "t.csv"
        with table.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
            csv.writer(file).writerows([("path", "label"), *(("a.png", name) for name in names)])
        images = read(str(table)).evaluation
    assert images.classes == tuple(sorted(set(names)))
    assert [images.label_name(label) for label in labels(images)] == names


@given(st.lists(st.integers(0, 999), min_size=1, max_size=8))
def test_csv_numbers_come_back(numbers: list[int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "a.png", 1)
        table = listing(Path(place) / "t.csv", ["path,label", *(f"a.png,{number}" for number in numbers)])
        images = read(str(table)).evaluation
    assert labels(images) == numbers and images.classes is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["file,label", "a.png,1"], "no column 'path'(.|\n)*names file, label"),
        ([""], "no column 'path'(.|\n)*names nothing"),
        (["path,label"], "a header and no entries"),
        (["path,label", "a.png,1", "a.png,"], "entry 2 has an empty one"),
        (["path,label", "a.png,1", "a.png,cat"], "entry 2 has 'cat', entry 1 a number"),
        (["path,label", "a.png,-1", "a.png,1"], "mixes labels"),
        (["path,label", "a.png,1", "b.png,1"], "b.png of entry 2 is looked for at"),
    ],
)
def test_bad_csv(tmp_path: Path, lines: list[str], words: str) -> None:
    write(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=words):
        read(str(listing(tmp_path / "t.csv", lines)))


def test_csv_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x81" * 9)
    with pytest.raises(DataError, match="is not a CSV"):
        read(str(tmp_path / "t.csv"))


COLOUR = np.stack([picture(seed) for seed in range(12)]).reshape(4, 16, 16, 3)
NPZ = {"x_train": COLOUR, "y_train": np.arange(4), "x_test": COLOUR[::-1], "y_test": np.array([1, 0, 3, 2], np.uint8)}


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **NPZ, classes=np.array(["a", "b", "c", "d"]))
    parts = read(str(tmp_path / "a.npz"))
    assert parts.train is not None and parts.train.refs[1] == "train/1"
    assert parts.evaluation.refs == ("test/0", "test/1", "test/2", "test/3")
    assert labels(parts.evaluation) == [1, 0, 3, 2] and parts.evaluation.classes == ("a", "b", "c", "d")
    assert (pixels(parts.evaluation, 0) == COLOUR[3]).all()  # lossless, colours in their order


def test_npz_grey_with_and_without_a_channel_axis(tmp_path: Path) -> None:
    grey = COLOUR[..., 0]
    np.savez(
        tmp_path / "a.npz",
        calib_images=grey[..., None],
        calib_labels=np.zeros(4, int),
        eval_images=grey,
        eval_labels=np.zeros(4, int),
    )
    parts = read(str(tmp_path / "a.npz"))
    assert parts.train is not None and parts.train.refs[0] == "calib/0" and parts.evaluation.refs[3] == "eval/3"
    assert (pixels(parts.train, 2) == grey[2]).all() and (pixels(parts.evaluation, 2) == grey[2]).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"x_test": COLOUR.astype(np.float32) / 255}, "x_test is float32, not uint8"),
        ({"x_test": COLOUR.transpose(0, 3, 1, 2)}, r"x_test has shape \(4, 3, 16, 16\)"),
        ({"y_test": np.arange(3)}, r"y_test has shape \(3,\) for 4 images"),
        ({"y_test": np.eye(4)}, "y_test is float64"),
        ({"y_test": np.array([0, -1, 0, 0])}, "y_test has labels below 0"),
        ({"classes": np.array(["a", "b", "c"])}, "labels above the 3 classes"),
        ({"classes": np.arange(4)}, "is not a list of names"),
        ({"classes": np.array(["a", None], dtype=object)}, "cannot be read as a .npz"),
        ({"x_test": COLOUR[:0], "y_test": np.arange(0)}, "x_test has no pixels"),
    ],
)
def test_bad_npz(tmp_path: Path, changed: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "a.npz", **(NPZ | changed))
    with pytest.raises(DataError, match=words):
        read(str(tmp_path / "a.npz"))


def test_npz_that_is_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", **NPZ)
    whole = (tmp_path / "whole.npz").read_bytes()
    for name, content in {"cut": whole[:500], "empty": b"", "text": b"hello", "pickle": pickle.dumps([1])}.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as a \.npz"):
            read(str(tmp_path / f"{name}.npz"))
    np.savez(tmp_path / "other.npz", images=COLOUR)
    with pytest.raises(DataError, match=r"it holds images(.|\n)*np\.savez_compressed as x_train,y_train"):
        read(str(tmp_path / "other.npz"))


def test_empty_folders_and_folders_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty") as caught:
        read(str(tmp_path))
    assert caught.value.exit_code == 2 and len(str(caught.value).splitlines()) == 3
    listing(tmp_path / "readme.txt", ["hello"])
    with pytest.raises(DataError, match=r"it holds 1 files, such as readme\.txt"):
        read(str(tmp_path))


def test_unknown_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'fashion-mnist'"):
        read("fashion-mnits")
    with pytest.raises(DataError, match=r"a\.txt is not data that can be read"):
        read(str(listing(tmp_path / "a.txt", ["x"])))


def test_built_in_data_is_labelled_and_apart() -> None:
    parts = read("fashion-mnist")
    assert BUILTIN.keys() == {"fashion-mnist"}
    assert parts.train is not None and len(parts.train) >= 1000 and len(parts.evaluation) >= 2000
    assert parts.evaluation.classes is not None and parts.evaluation.classes[0] == "T-shirt/top"
    assert set(labels(parts.evaluation)) == set(range(10))
    digests = {parts.train.digest(index) for index in range(len(parts.train))}
    assert not any(parts.evaluation.digest(index) in digests for index in range(len(parts.evaluation)))


def test_a_subset_keeps_refs_labels_and_content_together(tmp_path: Path) -> None:
    images = read(str(folder(tmp_path, {"cat": 2, "dog": 2}))).evaluation
    part = images.subset([3, 0]).subset([1, 0])
    assert part.refs == ("cat/000.png", "dog/001.png") and labels(part) == [0, 1]
    assert part.encoded(1) == images.encoded(3) and part.digest(0) == images.digest(0)
