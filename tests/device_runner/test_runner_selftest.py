"""The golden record is reproducible and strict, and its replay notices what a device could do wrong."""

from __future__ import annotations

import contextlib
import io
import zipfile
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from runner_bundles import KINDS, PREPROCESS, make_files, photo, write_directory

from device_runner import golden, preprocess
from device_runner.bundle import Bundle, open_bundle
from device_runner.engines import open_engine
from device_runner.engines.base import Engine
from device_runner.errors import BundleError, EngineError, Problem, SelfTestError
from device_runner.golden import probe_image, read_golden
from device_runner.manifest import Preprocess
from device_runner.selftest import check_output, selftest

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def bundles(all_files: dict[str, Files], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {kind: open_bundle(write_directory(folder / kind, all_files[kind])) for kind in KINDS}


def engine_of(bundle: Bundle) -> Engine:
    return open_engine(bundle.model, bundle.manifest.format)


def changed(bundle: Bundle, **fields: Any) -> Bundle:
    """The bundle with fields of its manifest replaced, past all verification."""
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, **fields))


# The record.


def test_the_record_holds_what_each_step_gave(any_files: Files):
    record = read_golden(any_files["golden.npz"])
    assert len(record) == 4 and record.image(0) == photo(0) and record.image(3) == probe_image()
    pixels = preprocess.pixels(preprocess.decode(photo(1)), PREPROCESS)
    np.testing.assert_array_equal(record.pixels[1], pixels)


def test_the_same_images_give_the_same_bytes(files: Files):
    assert make_files("tflite-int8")["golden.npz"] == files["golden.npz"]


def test_numpy_itself_can_read_it(files: Files):
    with np.load(io.BytesIO(files["golden.npz"]), allow_pickle=False) as arrays:
        assert set(arrays) == {"images", "offsets", "pixels", "inputs_sha256", "outputs"}
        assert arrays["outputs"].dtype == np.int8 and arrays["offsets"].dtype == np.int64


def test_the_probe_is_a_small_lossless_image_that_lies_on_its_side():
    image = preprocess.decode(probe_image())
    assert image.format == "PNG" and image.size == (509, 383) and preprocess.upright(image).size == (383, 509)
    assert image.getexif()[preprocess.EXIF_ORIENTATION] == 6
    assert len(probe_image()) < 100_000


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def broken_records(data: bytes) -> dict[str, bytes]:
    with np.load(io.BytesIO(data)) as loaded:
        good = {name: loaded[name] for name in ("images", "offsets", "pixels", "inputs_sha256", "outputs")}
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **good)
    return {
        "nothing": b"",
        "not a zip": b"hello" * 100,
        "truncated": data[: len(data) // 2],
        "compressed": compressed.getvalue(),
        "pickle": npz(**{**good, "outputs": np.array([[print, 1]], dtype=object)}),
        "array missing": npz(**{k: v for k, v in good.items() if k != "outputs"}),
        "array extra": npz(**good, more=good["offsets"]),
        "float64": npz(**{**good, "outputs": good["outputs"].astype(np.float64)}),
        "one output less": npz(**{**good, "outputs": good["outputs"][1:]}),
        "one image less": npz(**{**good, "pixels": good["pixels"][1:]}),
        "rank": npz(**{**good, "pixels": good["pixels"][..., 0]}),
        "offsets back": npz(**{**good, "offsets": good["offsets"][::-1]}),
        "offsets cross": npz(**{**good, "offsets": good["offsets"][[0, 2, 1, 3, 4]]}),
        "empty image": npz(**{**good, "offsets": good["offsets"][[0, 1, 1, 3, 4]]}),
        "offsets beyond": npz(**{**good, "offsets": good["offsets"] + 1}),
        "no images": npz(**{k: v[:0] for k, v in good.items() if k != "offsets"}, offsets=good["offsets"][:1]),
        "shape lies": data.replace(b"(4, 12, 16, 3)", b"(4, 12, 16, 9)"),
    }


@pytest.mark.parametrize("name", broken_records(make_files("tflite-int8")["golden.npz"]))
def test_a_broken_record_is_refused(name: str, files: Files):
    with pytest.raises(BundleError, match=r"golden.npz cannot be read\n  why: .+\n  fix: "):
        read_golden(broken_records(files["golden.npz"])[name])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_record_never_raises_anything_else(data: st.DataObject):
    record = bytearray(SMALL_RECORD)
    for at in data.draw(st.lists(st.integers(0, len(record) - 1), min_size=1, max_size=6)):
        record[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        read_golden(bytes(record))


def small_record() -> bytes:
    one = np.zeros((1, 2, 2, 1), np.uint8)
    record = golden.Golden(
        one.reshape(-1), np.array([0, 4]), one, np.zeros((1, 32), np.uint8), np.zeros((1, 2), np.int8)
    )
    return golden._write(record)


SMALL_RECORD = small_record()


# The replay.


@pytest.mark.parametrize("kind", KINDS)
def test_an_intact_bundle_passes_without_any_difference(kind: str, bundles: dict[str, Bundle]):
    result = selftest(bundles[kind], engine_of(bundles[kind]))
    assert (result.n, result.worst_pixel, result.worst_output, result.ok) == (4, 0, 0, True)
    assert result.tolerance > 0


CHANGES: dict[str, dict[str, Any]] = {
    "BGR": {"color": "BGR"},
    "no exif": {"exif": False},
    "exact": {"resize": "exact"},
    "a pixel more": {"size": (19, 19)},
    "crop": {"crop": (12, 15)},
    "crop swapped": {"crop": (16, 12)},
    "mean": {"mean": (0.485, 0.456, 0.407)},
    "mean in another order": {"mean": PREPROCESS.mean[::-1]},
    "std": {"std": (0.229, 0.225, 0.225)},
    "std in another order": {"std": PREPROCESS.std[::-1]},
    **{name: {"filter": name} for name in preprocess.FILTERS if name != PREPROCESS.filter},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHANGES)
def test_every_preprocessing_field_is_noticed(name: str, kind: str, bundles: dict[str, Bundle]):
    bundle = bundles[kind]
    other = changed(bundle, preprocess=msgspec.structs.replace(PREPROCESS, **CHANGES[name]))
    with pytest.raises((SelfTestError, BundleError)):
        selftest(other, engine_of(bundle))


@pytest.mark.parametrize("a", preprocess.FILTERS)
@pytest.mark.parametrize("size", [28, 32, 224, 300])
def test_the_probe_alone_tells_all_filters_apart(a: str, size: int):
    """Also box from nearest, which are the same where an image grows."""
    p: Preprocess = msgspec.structs.replace(PREPROCESS, size=(size, size), crop=(size, size))
    image = preprocess.decode(probe_image())
    seen = {f: preprocess.pixels(image, msgspec.structs.replace(p, filter=f)).astype(int) for f in preprocess.FILTERS}
    for b in seen.keys() - {a}:
        assert np.abs(seen[a] - seen[b]).max() > 1


@pytest.mark.parametrize("kind", ["tflite-int8", "onnx-int8"])
@pytest.mark.parametrize("field", [{"scale": 0.021}, {"zero_point": -2}])
def test_another_input_quantization_is_noticed(kind: str, field: dict[str, Any], bundles: dict[str, Bundle]):
    other = changed(bundles[kind], input=msgspec.structs.replace(bundles[kind].manifest.input, **field))
    with pytest.raises(SelfTestError, match="golden vector 0 gives another input tensor"):
        selftest(other, engine_of(other))


def test_logits_declared_as_probabilities_are_noticed(bundles: dict[str, Bundle]):
    bundle = bundles["onnx-float32"]
    other = changed(bundle, output=msgspec.structs.replace(bundle.manifest.output, kind="probabilities"))
    with pytest.raises(EngineError, match="rather logits"):
        selftest(other, engine_of(bundle))


class Altered:
    """An engine that answers something else than the one it wraps."""

    name, version = "altered", "0"
    delegate: str | None = None

    def __init__(self, engine: Engine, alter: Any) -> None:
        self.engine, self.alter, self.calls = engine, alter, 0

    def run(self, x: np.ndarray) -> np.ndarray:
        self.calls += 1
        return self.alter(self.engine.run(x), self.calls)


ALTERATIONS = {
    "classes permuted": (lambda y, n: np.roll(y, 1), "golden vector 0 gives"),
    "a constant": (lambda y, n: np.zeros_like(y), "golden vector 0 gives"),
    "only the last": (lambda y, n: y if n < 4 else y + np.float32(0.1), "golden vector 3 gives another output"),
    "NaN": (lambda y, n: y * np.float32(np.nan), "5 of 5 scores are not numbers"),
    "a class less": (lambda y, n: y[:, 1:], "the model gave float32"),
    "a batch": (lambda y, n: np.concatenate([y, y]), "the model gave float32"),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_engine_that_answers_otherwise_fails(name: str, bundles: dict[str, Bundle]):
    alter, words = ALTERATIONS[name]
    with pytest.raises(Problem, match=words):
        selftest(bundles["onnx-float32"], Altered(engine_of(bundles["onnx-float32"]), alter))


def test_one_code_of_a_quantized_model_is_allowed(bundles: dict[str, Bundle]):
    """Kernels of other processors round the last bit otherwise; 2 % of the range is far below a wrong answer."""
    bundle = bundles["tflite-int8"]
    result = selftest(bundle, Altered(engine_of(bundle), lambda y, n: y + np.int8(1)))
    assert result.worst_output == pytest.approx(bundle.manifest.output.scale, rel=1e-5)
    with pytest.raises(SelfTestError, match="golden vector 0 gives another output"):  # two codes are 3 % here
        selftest(bundle, Altered(engine_of(bundle), lambda y, n: y + np.int8(2)))


def test_a_runtime_without_the_kernels_of_the_record_is_named(bundles: dict[str, Bundle]):
    """Only where the kernels can be the reason: a float file, or one with the same delegate, is just wrong."""
    bundle = bundles["tflite-int8"]
    truth = msgspec.structs.replace(bundle.manifest.truth, delegate="XNNPACK")
    of_xnnpack = changed(bundle, truth=truth)
    plain = Altered(engine_of(bundle), lambda y, n: y + np.int8(2))
    with pytest.raises(SelfTestError) as caught:
        selftest(of_xnnpack, plain)
    assert caught.value.what == "golden vector 0 gives another output"
    assert caught.value.why.endswith("golden is of XNNPACK, and altered has kernels of its own, which round otherwise")
    assert "tflite-fp32" in caught.value.fix
    plain.delegate = "XNNPACK, 1 partition"
    with pytest.raises(SelfTestError, match=r"why: differing by [0-9.]+, allowed [0-9.]+\n"):
        selftest(of_xnnpack, plain)


def test_other_kernels_are_held_to_what_was_measured_of_such(bundles: dict[str, Bundle]):
    """One code of the bundle is 1.5 % of the range: two are over 2 %, four over the 5 % that may be allowed."""
    bundle = bundles["tflite-int8"]
    scale, truth = bundle.manifest.output.scale, msgspec.structs.replace(bundle.manifest.truth, delegate="XNNPACK")

    def by(codes: int, spread: float | None, delegate: str | None = None) -> float:
        output = msgspec.structs.replace(bundle.manifest.output, kernel_spread=spread)
        engine = Altered(engine_of(bundle), lambda y, n: y + np.int8(codes))
        engine.delegate = delegate
        return selftest(changed(bundle, truth=truth, output=output), engine).worst_output

    assert by(2, 1.4 * scale) == pytest.approx(2 * scale, rel=1e-4)
    for codes, spread, delegate in ((2, None, None), (2, 0.5 * scale, None), (3, 1.4 * scale, None), (4, 1e9, None),
                                    (2, 1.4 * scale, "XNNPACK, 1 partition")):  # fmt: skip
        with pytest.raises(SelfTestError, match="gives another output"):
            by(codes, spread, delegate)


def test_a_change_of_class_is_excused_only_where_golden_is_undecided():
    decided, undecided = np.array([1.0, 0.5], np.float32), np.array([1.0, 0.95], np.float32)
    assert check_output(undecided, np.array([0.96, 0.99], np.float32), 0, tolerance=0.1) == pytest.approx(
        0.04, rel=1e-3
    )
    with pytest.raises(SelfTestError, match="golden vector 7 gives class 1, not 0"):
        check_output(decided, np.array([0.7, 0.8], np.float32), 7, tolerance=0.4)


def test_jpeg_decoders_may_differ_by_one_and_no_more(files: Files, bundles: dict[str, Bundle]):
    bundle = bundles["tflite-int8"]
    record = read_golden(files["golden.npz"])
    for by, fails in ((1, False), (2, True)):
        pixels = record.pixels.copy()
        pixels[2, 0, 0] = np.where(pixels[2, 0, 0] > 100, pixels[2, 0, 0] - by, pixels[2, 0, 0] + by)
        spec, p = bundle.manifest.input, bundle.manifest.preprocess
        x = preprocess.encode(preprocess.normalize(pixels[2], p), spec)
        digests = record.inputs_sha256.copy()
        digests[2] = golden.digest(x)
        other = replace(record, pixels=pixels, inputs_sha256=digests)
        trial = replace(bundle, files={**bundle.files, "golden.npz": golden._write(other)})
        if fails:
            with pytest.raises(SelfTestError, match="golden image 2 gives other pixels\n  why: differing by up to 2"):
                selftest(trial, engine_of(bundle))
        else:
            assert selftest(trial, engine_of(bundle)).worst_pixel == 1


def test_a_record_of_another_model_is_refused(bundles: dict[str, Bundle], all_files: dict[str, Files]):
    bundle = bundles["tflite-int8"]
    swapped = replace(bundle, files={**bundle.files, "golden.npz": all_files["tflite-float32"]["golden.npz"]})
    with pytest.raises(BundleError, match=r"golden\.npz is not of this model"):
        selftest(swapped, engine_of(bundle))


def test_a_zip_of_the_record_is_stored_with_fixed_dates(files: Files):
    with zipfile.ZipFile(io.BytesIO(files["golden.npz"])) as archive:
        assert {m.date_time for m in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {m.compress_type for m in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_grey_model_works_end_to_end():
    """One channel: pixels keep their last axis."""
    grey = msgspec.structs.replace(PREPROCESS, color="L", mean=(0.5,), std=(0.25,))
    assert preprocess.prepare(photo(0), grey).shape == (12, 16, 1)
    assert preprocess.pixels(Image.new("RGB", (30, 30), (9, 9, 9)), grey).max() == 9
