import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrink.errors import ArtifactError, DataError
from shrink.verify.judge import check_answers, judge, overall


def _spread(n: int = 200, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Scores that name every class in turn, and the classes they name."""
    answers = np.arange(n) % classes
    return np.eye(classes, dtype=np.float32)[answers] + np.float32(0.1), answers


def test_counts_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    reference = np.array([0, 0, 1, 1, 2, 0, 0, 1])  # 5 right
    candidate = np.array([0, 1, 0, 1, 2, 2, 0, 2])  # 4 right: loses two, wins one, one wrong in another way
    result = judge(labels, reference, candidate, max_drop=0.01)
    assert (result.images, result.top1_float, result.top1, result.drop) == (8, 5 / 8, 4 / 8, 1 / 8)
    assert (result.flips_lost, result.flips_won, result.agreement) == (2, 1, 4 / 8)
    assert result.p_value == 1.0
    assert result.verdict == "not enough images"
    assert result.images_needed == pytest.approx(2.706 * (3 / 8) / (1 / 8 - 0.01) ** 2 - 8, rel=0.05)  # Wald's way
    assert result.max_drop == 0.01


def test_equal_answers_pass_with_an_interval_that_is_not_nothing() -> None:
    labels = np.arange(2000) % 10
    result = judge(labels, labels, labels, max_drop=0.01)
    assert (result.verdict, result.images_needed, result.drop, result.agreement) == ("pass", None, 0.0, 1.0)
    assert result.drop_low < 0 < result.drop_high < 0.002


def test_a_lost_model_fails() -> None:
    labels = np.arange(2000) % 10
    candidate = np.where(np.arange(2000) < 100, (labels + 1) % 10, labels)
    result = judge(labels, labels, candidate, max_drop=0.01)
    assert (result.verdict, result.flips_lost, result.drop) == ("fail", 100, 0.05)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=60))
def test_drop_is_the_difference_of_both_top1(rows: list[tuple[int, int, int]]) -> None:
    labels, reference, candidate = np.array(rows).T
    result = judge(labels, reference, candidate, max_drop=0.01)
    assert result.flips_lost == sum(r == y != c for y, r, c in rows)
    assert result.flips_won == sum(c == y != r for y, r, c in rows)
    assert result.drop == pytest.approx(result.top1_float - result.top1)
    assert result.drop_low <= result.drop <= result.drop_high


def test_no_image_is_an_error() -> None:
    none = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="no image to judge"):
        judge(none, none, none, max_drop=0.01)


def test_sound_answers_are_taken() -> None:
    check_answers("tflite-int8", *_spread())


@pytest.mark.parametrize("row", [0, 57, 199])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_in_any_row_is_noticed(row: int, value: float) -> None:
    outputs, reference = _spread()
    outputs[row, 3] = value
    with pytest.raises(ArtifactError, match=rf"tflite-int8 answers NaN or infinity for 1 of 200.*number {row}"):
        check_answers("tflite-int8", outputs, reference)


def test_a_constant_is_noticed_even_where_float_names_one_class() -> None:
    outputs = np.tile(np.float32([0.1, 0.7]), (50, 1))
    with pytest.raises(ArtifactError, match="the very same scores for all 50 images"):
        check_answers("onnx-int8", outputs, np.ones(50, dtype=np.int64))


def test_one_image_cannot_be_a_constant() -> None:
    check_answers("onnx-int8", np.float32([[0.1, 0.7]]), np.array([1]))


def test_class_collapse_is_noticed() -> None:
    outputs, reference = _spread()
    outputs[:, 4] += np.linspace(2, 3, 200, dtype=np.float32)
    with pytest.raises(ArtifactError, match=r"class collapse: onnx-int8 answers class 4 for 100\.0% of the images"):
        check_answers("onnx-int8", outputs, reference)


def test_one_class_is_no_collapse_when_float_names_it_too() -> None:
    outputs, _ = _spread()
    outputs[:, 4] += np.linspace(2, 3, 200, dtype=np.float32)
    reference = np.full(200, 4)
    check_answers("onnx-int8", outputs, reference)
    reference[:9] = 0  # 4.5 %: rare classes, which the accuracy tells about
    check_answers("onnx-int8", outputs, reference)


def test_a_few_flips_on_a_small_set_are_no_collapse() -> None:
    outputs = np.float32([[1, 0], [2, 0], [3, 0], [4, 0], [5, 0]])
    check_answers("onnx-int8", outputs, np.array([0, 0, 0, 1, 1]))


def test_the_overall_verdict_is_the_worst() -> None:
    assert overall(["pass", "pass"]) == "pass"
    assert overall(["pass", "not enough images"]) == "not enough images"
    assert overall(["not enough images", "fail", "pass"]) == "fail"
