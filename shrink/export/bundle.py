"""Write a bundle: all that a device needs, in one directory (DESIGN of the manifest: device_runner)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from device_runner.contract import CODES, GOLDEN_NAME, LABELS_NAME, check
from device_runner.manifest import MANIFEST_NAME, DType, File, Input, Manifest, Output, dump
from shrink.export.names import INPUT_NAME, OUTPUT_NAME, Codes
from shrink.graph.entrance import Layout

Affine = tuple[float | None, int | None]
"""Scale and zero point."""


def image_input(
    input_shape: tuple[int, ...], layout: Layout, dtype: Codes | None = None, codes: Affine | None = None
) -> Input:
    """The image input of a file; `input_shape` is (1, C, H, W).

    Args:
        input_shape: of the model.
        layout: of the file.
        dtype: of codes; None for floats.
        codes: scale and zero point of normalized values; None for pixels.
    """
    batch, channels, height, width = input_shape
    shapes = {"NHWC": (batch, height, width, channels), "NCHW": (batch, channels, height, width)}
    if dtype is None:
        return Input(name=INPUT_NAME, shape=shapes[layout], dtype="float32", layout=layout)
    scale, zero_point = codes or (1.0, CODES[dtype][0])
    return Input(
        name=INPUT_NAME,
        shape=shapes[layout],
        dtype=dtype,
        layout=layout,
        values="normalized" if codes else "pixels",
        scale=scale,
        zero_point=zero_point,
    )


def scores_output(classes: int, codes: Affine | None = None) -> Output:
    """Scores before softmax: floats, or int8 codes with that scale and zero point."""
    scale, zero_point = codes or (None, None)
    dtype: DType = "int8" if codes else "float32"
    return Output(name=OUTPUT_NAME, shape=(1, classes), dtype=dtype, kind="logits", scale=scale, zero_point=zero_point)


def write_bundle(folder: Path, manifest: Manifest, model: bytes, golden: bytes) -> None:
    """Write the files of a bundle and a manifest that binds them by size and sha256.

    Args:
        folder: existing directory to write into.
        manifest: everything but `files`, which is filled in here.
        model: the model file.
        golden: golden.npz.
    """
    contents = {
        manifest.model: model,
        LABELS_NAME: "".join(f"{label}\n" for label in manifest.labels).encode(),
        GOLDEN_NAME: golden,
    }
    files = tuple(
        File(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for name, data in contents.items()
    )
    complete = msgspec.structs.replace(manifest, files=files)
    check(complete)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / MANIFEST_NAME).write_bytes(dump(complete))


def one_line_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Labels as a device may print them: one line each, no control characters, at most 128 bytes."""
    clean = ("".join(c if c.isprintable() else " " for c in label).strip() or "unnamed" for label in labels)
    return tuple(label.encode()[:128].decode(errors="ignore").strip() for label in clean)
