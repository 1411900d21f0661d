"""What the toolkit writes, the runner accepts; and it notices every change."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from export_nets import CLASSES, SHAPE, Printed
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from device_runner.bundle import open_bundle
from device_runner.contract import LABELS_NAME
from device_runner.engines import open_engine
from device_runner.errors import BundleError
from device_runner.golden import make_golden
from device_runner.manifest import MANIFEST_NAME, Manifest, Preprocess
from device_runner.selftest import selftest
from shrink.export.bundle import image_input, one_line_labels, scores_output, write_bundle
from shrink.export.names import MODEL_NAMES
from shrink.inspect.truth import inspect_bytes

Printer = Callable[..., Printed]
PREPROCESS = Preprocess(
    color="RGB", exif=True, resize="shorter", size=(18, 18), filter="bilinear", crop=SHAPE[2:],
    mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
)  # fmt: skip
HOSTILE = ("cat\n", "\u202edog", "a\tb\x00c", "  ", "\ud800", "x" * 200)


def photo(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    out = BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def parts(item: Printed, labels: tuple[str, ...] = HOSTILE[:CLASSES]) -> tuple[Manifest, bytes, bytes]:
    """Manifest without files, model and golden.npz."""
    target = item.target
    engine = open_engine(item.file, target.format, engine=target.engine)
    spec = image_input(SHAPE, target.layout)
    manifest = Manifest(
        name="tiny",
        target=target.name,
        format=target.format,
        task="classification",
        model=MODEL_NAMES[target.format],
        input=spec,
        output=scores_output(CLASSES),
        preprocess=PREPROCESS,
        labels=one_line_labels(labels),
        files=(),
        truth=inspect_bytes(item.file, target.format, target.name).truth,
        accuracy=None,
        latency=None,
        provenance={"seed": 1},
    )
    return manifest, item.file, make_golden([photo(i) for i in range(2)], PREPROCESS, spec, engine.run)


@pytest.mark.parametrize("target", ["tflite-int8", "tflite-fp32", "onnx-int8", "onnx-fp32"])
def test_a_bundle_is_accepted_and_passes_its_self_test(made: Printer, tmp_path: Path, target: str) -> None:
    item = made("cnn", target)
    write_bundle(tmp_path, *parts(item))
    bundle = open_bundle(tmp_path)
    assert bundle.model == item.file
    assert bundle.manifest.labels == one_line_labels(HOSTILE[:CLASSES])
    assert {file.name for file in bundle.manifest.files} | {MANIFEST_NAME} == {p.name for p in tmp_path.iterdir()}
    result = selftest(bundle, open_engine(bundle.model, item.target.format))
    assert result.ok and result.n == 3 and result.worst_pixel == 0 and result.worst_output == 0


def test_input_and_output_are_what_the_file_has(made: Printer) -> None:
    nhwc, nchw = (image_input((1, 3, 20, 30), made("cnn", f"{form}-fp32").target.layout) for form in ("tflite", "onnx"))
    assert (nhwc.shape, nhwc.layout, nhwc.values) == ((1, 20, 30, 3), "NHWC", "normalized")
    assert (nchw.shape, nchw.layout, nchw.scale) == ((1, 3, 20, 30), "NCHW", None)
    for dtype, zero in (("uint8", 0), ("int8", -128)):
        spec = image_input((1, 3, 20, 30), "NHWC", dtype)
        assert (spec.dtype, spec.values, spec.scale, spec.zero_point) == (dtype, "pixels", 1.0, zero)
    assert scores_output(7).shape == (1, 7) and scores_output(7).kind == "logits"


def test_a_flipped_bit_anywhere_is_noticed(made: Printer, tmp_path: Path) -> None:
    write_bundle(tmp_path, *parts(made("cnn", "onnx-fp32")))
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(BundleError):
            open_bundle(tmp_path)
        path.write_bytes(whole)
    open_bundle(tmp_path)


@pytest.mark.parametrize(
    "change", [{"labels": ("a", "b")}, {"output": scores_output(CLASSES + 1)}, {"model": "../model.onnx"}]
)
def test_a_manifest_that_contradicts_itself_is_not_written(
    made: Printer, tmp_path: Path, change: dict[str, object]
) -> None:
    manifest, model, golden = parts(made("cnn", "onnx-fp32"))
    with pytest.raises(BundleError, match="contradicts itself"):
        write_bundle(tmp_path, msgspec.structs.replace(manifest, **change), model, golden)
    assert list(tmp_path.iterdir()) == []


# --- labels


def test_hostile_labels_by_hand() -> None:
    assert one_line_labels(HOSTILE) == ("cat", "dog", "a b c", "unnamed", "unnamed", "x" * 128)
    assert one_line_labels(("é" * 100, "a\u2028b", "\x1b[31mred", "日本")) == ("é" * 64, "a b", "[31mred", "日本")


text = st.text(st.characters(exclude_categories=()), max_size=150)


@example(["x" * 127 + " y"])
@example(["x" * 127 + "é"])
@given(st.lists(text, min_size=1, max_size=5))
def test_labels_are_one_printable_line_of_bounded_size(labels: list[str]) -> None:
    clean = one_line_labels(tuple(labels))
    assert len(clean) == len(labels)
    for label in clean:
        assert label.isprintable() and label == label.strip() and 1 <= len(label.encode()) <= 128
    assert "".join(f"{label}\n" for label in clean).splitlines() == list(clean)
    assert one_line_labels(clean) == clean


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=30))
def test_ordinary_labels_stay(label: str) -> None:
    assert one_line_labels((label,)) == (label,)


def test_labels_of_the_file_are_those_of_the_manifest(made: Printer, tmp_path: Path) -> None:
    write_bundle(tmp_path, *parts(made("cnn", "onnx-fp32")))
    lines = (tmp_path / LABELS_NAME).read_text(encoding="utf-8").split("\n")
    assert tuple(lines[:-1]) == open_bundle(tmp_path).manifest.labels and lines[-1] == ""
