"""The answers a run keeps: what is written is read back, what is crafted is refused, and rows are found by content."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runner import npz
from shrink.errors import RequestError
from shrink.runs import predictions
from shrink.runs.pairing import keyed, pair
from shrink.runs.predictions import Answered, Predictions, answered, dump, groups, parse


def sample(n: int = 40, classes: int = 3, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    return Predictions(
        classes=tuple(f"class {i}" for i in range(classes)),
        refs=tuple(f"a/{i}.jpg" for i in range(n)),
        hashes=rng.integers(0, 256, (n, 16), dtype=np.uint8),
        labels=rng.integers(0, classes, n, dtype=np.int32),
        slices={"site": tuple(f"site {i % 2}" for i in range(n))},
        reference=answered(rng.standard_normal((n, classes), dtype=np.float32)),
        files={name: answered(rng.standard_normal((n, classes), dtype=np.float32)) for name in ("a", "b")},
    )


def same(a: Predictions, b: Predictions) -> bool:
    return dump(a) == dump(b)


def test_what_is_written_is_read_back():
    p = sample()
    found = parse(dump(p))
    assert same(found, p)
    assert (found.refs, found.slices, tuple(found.files)) == (p.refs, p.slices, ("a", "b"))
    np.testing.assert_array_equal(found.files["b"].top1, p.files["b"].top1)


def test_numpy_itself_can_read_it():
    p = sample()
    with np.load(io.BytesIO(dump(p)), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["top1"][2], p.files["b"].top1)


def test_the_answer_to_scores_by_hand():
    found = answered(np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]], np.float32)))
    assert found.top1.tolist() == [0, 2]
    np.testing.assert_allclose(found.confidence, [0.7, 0.5], atol=1e-3)
    np.testing.assert_allclose(found.margin, [0.5, 0.25], atol=1e-3)


def test_one_class_and_huge_scores_have_an_answer():
    found = answered(np.array([[3e38, -3e38], [0, 0]], np.float32))
    assert found.confidence.tolist() == [1.0, 0.5] and found.margin.tolist() == [1.0, 0.0]
    assert answered(np.ones((2, 1), np.float32)).margin.tolist() == [1.0, 1.0]


def test_a_column_that_names_every_image_is_no_group():
    kept = groups({"id": [str(i) for i in range(201)], "site": ["a"] * 201})
    assert set(kept) == {"site"}


def test_ten_thousand_images_take_less_than_half_a_megabyte():
    assert len(dump(sample(10_000, 1000))) < 500_000


def broken(p: Predictions) -> dict[str, tuple[bytes, str]]:
    with np.load(io.BytesIO(dump(p)), allow_pickle=False) as loaded:
        good = {name: loaded[name] for name in predictions.KINDS}
    about = msgspec.json.decode(good["about"].tobytes())

    def told(**changes: object) -> bytes:
        text = np.frombuffer(msgspec.json.encode(about | changes), np.uint8)
        return npz.pack(good | {"about": text}, compress=True)

    def held(**changes: np.ndarray) -> bytes:
        return npz.pack(good | changes, compress=True)

    nan = good["confidence"].copy()
    nan[0, 0] = np.nan
    text = {"deep": b"[" * 100_000, "no JSON": b"\xff", "NaN": b'{"schema": NaN}'}
    return {
        "nothing": (b"", "zip"),
        "truncated": (dump(p)[:-40], "zip"),
        "another schema": (told(schema=2), "predictions have schema 2"),
        "unknown field": (told(more=1), "unknown field"),
        "targets": (told(targets=["a"]), "2 models"),
        "target twice": (told(targets=["a", "a"]), "a target twice"),
        "refs": (told(refs=["x"]), "1 images"),
        "slices": (told(slices={"site": ["x"]}), "1 values"),
        "class": (held(labels=good["labels"] + 3), "labels names classes outside"),
        "negative": (held(top1=good["top1"] - 9), "top1 names classes outside"),
        "not a number": (held(confidence=nan), "confidence is outside"),
        "float64": (held(margin=good["margin"].astype(np.float64)), "margin is float64"),
        "pickle": (_pickled(good), "about is object"),
        **{
            name: (npz.pack(good | {"about": np.frombuffer(b, np.uint8)}), "not predictions")
            for name, b in text.items()
        },
    }


def _pickled(good: dict[str, np.ndarray]) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **{**good, "about": np.array([{"a": 1}], dtype=object)})
    return out.getvalue()


@pytest.mark.parametrize("name", broken(sample()))
def test_crafted_predictions_are_refused_in_three_lines(name: str):
    data, words = broken(sample())[name]
    with pytest.raises(RequestError, match=r"\n  why: .+\n  fix: ") as caught:
        parse(data)
    assert words in str(caught.value)


def test_a_file_that_unpacks_to_more_than_memory_is_refused_unread():
    zeros = npz.pack({"about": np.zeros(5_000_000, np.uint8)}, compress=True)
    assert len(zeros) < 10_000
    with pytest.raises(ValueError, match="more than 1 MB"):
        npz.unpack(zeros, {"about": npz.Kind(("uint8",), 1)}, compressed_to=1_000_000)


SMALL = dump(sample(3))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_never_raises_anything_else(data: st.DataObject):
    record = bytearray(SMALL)
    for at in data.draw(st.lists(st.integers(0, len(record) - 1), min_size=1, max_size=6)):
        record[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RequestError):
        parse(bytes(record))


def shuffled(p: Predictions, order: np.ndarray) -> Predictions:
    def rows(a: Answered) -> Answered:
        return Answered(a.top1[order], a.confidence[order], a.margin[order])

    return replace(
        p,
        refs=tuple(p.refs[i] for i in order),
        hashes=p.hashes[order],
        labels=p.labels[order],
        slices={},
        reference=rows(p.reference),
        files={name: rows(a) for name, a in p.files.items()},
    )


def test_images_are_paired_by_content_in_whatever_order():
    p = sample()
    other = shuffled(p, np.random.default_rng(1).permutation(len(p)))
    found = pair(keyed(p), keyed(other))
    assert tuple(other.refs[row] for row in found) == p.refs


def test_copies_of_one_image_with_two_labels_are_paired_by_label():
    p = sample(4)
    twins = replace(p, hashes=np.zeros_like(p.hashes), labels=np.array([2, 0, 1, 0], np.int32))
    other = shuffled(twins, np.array([3, 2, 1, 0]))
    assert other.labels[pair(keyed(twins), keyed(other))].tolist() == [2, 0, 1, 0]


def test_runs_of_different_images_are_refused_with_the_count():
    p = sample()
    with pytest.raises(RequestError, match=r"different images\n  why: 37 images are in both, of 40 and 37"):
        pair(keyed(p), keyed(shuffled(p, np.arange(37))))


def test_runs_with_other_labels_are_refused():
    p = sample()
    other = replace(p, labels=(p.labels + (np.arange(40) == 7)) % 3)
    with pytest.raises(RequestError, match=r"by different labels\n  why: 1 of 40 differ; the first is a/7\.jpg"):
        pair(keyed(p), keyed(other))
