"""Calibration and evaluation images: how many, of which classes, and never the same."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
from data_samples import folder, listing, write
from hypothesis import given
from hypothesis import strategies as st

from shrink.data.split import draw, load, ranks
from shrink.errors import DataError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 9))
def test_a_draw_is_as_even_as_the_classes_allow(labels: list[int], count: int, seed: int) -> None:
    chosen = draw(np.array(labels), len(labels), count, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(labels))
    taken, there = Counter(labels[index] for index in chosen), Counter(labels)
    for one in there:
        for other in there:  # a class may be ahead by more than one only when the other is used up
            assert taken[one] <= taken[other] + 1 or taken[other] == there[other]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_ranks_count_the_same_label_before(labels: list[int]) -> None:
    expected = [labels[:index].count(label) for index, label in enumerate(labels)]
    assert ranks(np.array(labels, dtype=np.int64)).tolist() == expected


def test_the_seed_decides(tmp_path: Path) -> None:
    data = str(folder(tmp_path, {"cat": 60, "dog": 60}))
    first, again, other = (load(data, calibrate="40", seed=seed).calibration.refs for seed in (1, 1, 2))
    assert first == again != other


def test_one_part_is_divided(tmp_path: Path) -> None:
    split = load(str(folder(tmp_path, {"cat": 60, "dog": 60})), calibrate="40")
    assert len(split.calibration) == 40 and len(split.evaluation) == 80
    assert not set(split.calibration.refs) & set(split.evaluation.refs)
    assert split.calibration.labels is not None and split.calibration.labels.sum() == 20
    assert split.notes == ()


def test_at_most_half_of_one_part_is_taken_and_noted(tmp_path: Path) -> None:
    split = load(str(folder(tmp_path, {"cat": 70})))
    assert (len(split.calibration), len(split.evaluation)) == (35, 35)
    assert split.notes == ("35 calibration images were taken, 256 were asked for: there are no more",)


def test_copies_within_one_part_are_not_evaluated(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 40})
    folder(tmp_path, {"b": 40})  # the same pictures again
    split = load(str(tmp_path), calibrate="40")
    drawn = {ref.partition("/")[2] for ref in split.calibration.refs}
    assert len(split.evaluation) == 2 * (40 - len(drawn))  # the pictures of which neither copy was drawn
    kept = {split.evaluation.digest(index) for index in range(len(split.evaluation))}
    assert not kept & {split.calibration.digest(index) for index in range(40)}
    assert "copies of calibration images were left out" in split.notes[0]


def test_the_train_part_is_drawn_from_and_the_evaluation_stays_whole(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"cat": 50, "dog": 50})
    folder(tmp_path / "val", {"cat": 3, "dog": 3}, first=500)
    split = load(str(tmp_path), calibrate="32")
    assert len(split.calibration) == 32 and len(split.evaluation) == 6
    assert all(ref.startswith("train/") for ref in split.calibration.refs)


def test_train_images_that_are_also_evaluated_are_left_out(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"cat": 50})
    folder(tmp_path / "val", {"cat": 5})
    split = load(str(tmp_path), calibrate="50")
    assert len(split.calibration) == 45
    assert split.notes == ("5 images drawn for calibration are also in the evaluation part and were left out",)


def test_train_and_val_that_are_the_same_folder(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"cat": 50})
    folder(tmp_path / "val", {"cat": 50})
    with pytest.raises(DataError, match=r"only 0 calibration images(.|\n)*50 images drawn .* also in the evaluation"):
        load(str(tmp_path), calibrate="50")


def test_a_calibration_folder_and_csv_of_their_own(tmp_path: Path) -> None:
    data = str(folder(tmp_path / "data", {"cat": 4}, first=500))
    names = [write(tmp_path / "own" / f"{index}.png", index).name for index in range(33)]
    table = listing(tmp_path / "own" / "t.csv", ["path", *names])
    for calibrate in (str(tmp_path / "own"), str(table)):
        split = load(data, calibrate=calibrate)
        assert (len(split.calibration), len(split.evaluation)) == (33, 4)
        assert split.calibration.labels is None


def test_an_image_under_another_name_is_recognized(tmp_path: Path) -> None:
    folder(tmp_path / "data", {"cat": 4}, first=30)
    for index in range(33):
        write(tmp_path / "own" / f"{index}.png", index)
    with pytest.raises(DataError, match=r"share images, such as (30|31|32)\.png(.|\n)*cat/00[0-2]\.png"):
        load(str(tmp_path / "data"), calibrate=str(tmp_path / "own"))


@pytest.mark.parametrize("calibrate", ["31", "0", "-5"])
def test_too_few_asked_for(tmp_path: Path, calibrate: str) -> None:
    data = str(folder(tmp_path, {"cat": 80}))
    with pytest.raises(DataError, match=f"{calibrate} calibration images are too few"):
        load(data, calibrate=calibrate)


def test_too_few_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only 30 calibration images(.|\n)*at least 32") as caught:
        load(str(folder(tmp_path, {"cat": 60})), calibrate="32")
    assert caught.value.exit_code == 2


def test_only_copies_leave_nothing_to_evaluate(tmp_path: Path) -> None:
    for index in range(80):
        write(tmp_path / "cat" / f"{index}.png", 1)
    with pytest.raises(DataError, match="no evaluation images are left"):
        load(str(tmp_path), calibrate="32")


def test_evaluation_without_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=r"is not labelled(.|\n)*one sub-folder per class"):
        load(str(tmp_path))
    with pytest.raises(DataError, match="is not labelled"):
        load(str(listing(tmp_path / "t.csv", ["path", "a.png"])))


def test_a_calibration_folder_that_is_not_there(tmp_path: Path) -> None:
    data = str(folder(tmp_path, {"cat": 80}))
    with pytest.raises(DataError, match="there is no data 'calib'"):
        load(data, calibrate="calib")


def test_built_in_data() -> None:
    split = load("fashion-mnist")
    assert len(split.calibration) == 256 and len(split.evaluation) >= 2000 and split.notes == ()
    assert split.calibration.labels is not None
    assert set(np.bincount(split.calibration.labels).tolist()) == {25, 26}


def test_opening_data_needs_no_torch() -> None:
    code = "import sys, shrink.data.unpack, shrink.data.stream, shrink.data.checks; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
