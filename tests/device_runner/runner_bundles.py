"""Whole bundles for the tests, written as the toolkit writes them."""

from __future__ import annotations

import hashlib
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import runner_models as models
from PIL import Image

from device_runner.engines import open_engine
from device_runner.golden import make_golden
from device_runner.manifest import File, Input, Manifest, Output, Preprocess, TruthLabel, dump

LABELS = ("cat", "dog", "bird", "fish", "boat")
KINDS = ("tflite-float32", "tflite-int8", "onnx-float32", "onnx-int8")

PREPROCESS = Preprocess(
    color="RGB",
    exif=True,
    resize="shorter",
    size=(18, 18),
    filter="bilinear",
    crop=(models.HEIGHT, models.WIDTH),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
TRUTH = TruthLabel(
    int8_mac_share=0.0,
    dynamic_mac_share=0.0,
    int8_weight_share=0.0,
    macs=2880,
    ops=1,
    delegate=None,
    delegate_partitions=None,
    undelegated_ops=(),
    leftovers=(),
    input_dtype="float32",
    output_dtype="float32",
)


def photo(seed: int, width: int = 53, height: int = 41, format: str = "JPEG") -> bytes:
    """An image with large and small structures, as an encoded file."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(coarse, np.int16) + rng.integers(-20, 21, (height, width, 3), dtype=np.int16)
    out = BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(out, format)
    return out.getvalue()


def make_files(
    kind: str, changes: dict[str, Any] | None = None, preprocess: Preprocess = PREPROCESS
) -> dict[str, bytes]:
    """The files of a bundle of one of KINDS; `changes` replaces fields of the manifest, made consistent or not."""
    format, dtype = kind.split("-")
    quantized = dtype == "int8"
    model = models.make_tflite(quantized) if format == "tflite" else models.make_onnx(quantized)
    shape = (1, *models.SHAPE) if format == "tflite" else (1, 3, models.HEIGHT, models.WIDTH)
    spec = Input(
        name="image",
        shape=shape,
        dtype=dtype,  # type: ignore[arg-type]
        layout="NHWC" if format == "tflite" else "NCHW",
        scale=models.INPUT_SCALE if quantized else None,
        zero_point=models.INPUT_ZERO if quantized else None,
    )
    output = Output(
        name="scores",
        shape=(1, models.CLASSES),
        dtype=dtype,  # type: ignore[arg-type]
        kind="logits",
        scale=models.OUTPUT_SCALE if quantized else None,
        zero_point=models.OUTPUT_ZERO if quantized else None,
    )
    golden = make_golden([photo(i) for i in range(3)], preprocess, spec, open_engine(model, format).run)
    content = {f"model.{format}": model, "labels.txt": "".join(f"{x}\n" for x in LABELS).encode(), "golden.npz": golden}
    manifest = Manifest(
        name="tiny",
        target=kind,
        format=format,  # type: ignore[arg-type]
        task="classification",
        model=f"model.{format}",
        input=spec,
        output=output,
        preprocess=preprocess,
        labels=LABELS,
        files=listing(content),
        truth=TRUTH,
        accuracy=None,
        latency=None,
        provenance={"seed": 3},
    )
    manifest = msgspec.structs.replace(manifest, **changes or {})
    return {**content, "manifest.json": dump(manifest)}


def listing(content: dict[str, bytes]) -> tuple[File, ...]:
    """The manifest's entries for these files."""
    return tuple(File(name=n, sha256=hashlib.sha256(d).hexdigest(), size=len(d)) for n, d in content.items())


def write_directory(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
