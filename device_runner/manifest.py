"""The manifest of a bundle: everything a device must know, strict and versioned.

A missing or unknown field is refused, because a guessed preprocessing step is a wrong answer
that looks like a right one. Shapes include the batch dimension, which is 1.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec

SCHEMA: Final = 1
"""Version of the manifest format; a reader refuses any other."""

MANIFEST_NAME = "manifest.json"
FLAT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a file in a bundle may be called: one flat lower-case name, no folders, no links."""

Positive = Annotated[int, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
DType = Literal["float32", "int8", "uint8"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all manifest parts: immutable, keyword-only, unknown fields refused.

    msgspec applies `kw_only` to the class that states it alone, so every part states it again.
    """


class Tensor(Record, frozen=True, kw_only=True):
    """One model input or output. real = (code - zero_point) * scale when it is quantized."""

    name: str
    shape: tuple[Positive, ...]
    dtype: DType
    scale: float | None = None  # > 0; None for float32
    zero_point: int | None = None


class Input(Tensor, frozen=True, kw_only=True):
    """The image input.

    It holds normalized values, or the pixels themselves, 0..255: the model then normalizes them, with
    the mean and deviation of `Preprocess`, and real = grey level.
    """

    layout: Literal["NHWC", "NCHW"]
    values: Literal["normalized", "pixels"] = "normalized"


class Output(Tensor, frozen=True, kw_only=True):
    """The answer: one score per label, shape (1, classes)."""

    kind: Literal["logits", "probabilities"]
    kernel_spread: NotNegative | None = None  # how far scores of two kernel sets were apart; None: not measured


class Preprocess(Record, frozen=True, kw_only=True):
    """From an image file to the numbers the model was trained on, in the order applied.

    decode -> EXIF orientation -> colour -> resize -> centre crop -> times 1/255 -> (x - mean) / std.
    The resize is Pillow's, which antialiases, on 8-bit pixels; this is what torchvision and timm
    do to a PIL image.
    """

    color: Literal["RGB", "BGR", "L"]
    exif: bool  # apply the EXIF orientation before anything else
    resize: Literal["shorter", "exact"]  # shorter: that side becomes size[0], ratio kept
    size: tuple[Positive, Positive]  # height, width in pixels; for "shorter" both are equal
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    crop: tuple[Positive, Positive] | None  # height, width in pixels of the centre crop
    mean: tuple[float, ...]  # per channel, of pixels in 0..1, in the order of `color`
    std: tuple[float, ...]  # per channel, > 0


class File(Record, frozen=True, kw_only=True):
    """A file of the bundle, bound by content."""

    name: str
    sha256: Sha256
    size: Count  # bytes


class Leftover(Record, frozen=True, kw_only=True):
    """Work that the artefact does in float although int8 was asked for."""

    op: str  # the runtime's name of the op, such as SOFTMAX
    count: Positive
    mac_share: Share  # of all multiply-accumulates of the model
    reason: str


class TruthLabel(Record, frozen=True, kw_only=True):
    """What the written file really is, read from the file and from the runtime that loads it."""

    int8_mac_share: Share  # multiply-accumulates done on int8 operands / all
    dynamic_mac_share: Share  # the part of int8_mac_share whose activations are quantized at run time
    int8_weight_share: Share  # bytes of weights held in 8 bits / bytes of all weights
    macs: Count  # multiply-accumulates of one inference
    ops: Count  # nodes in the file
    delegate: str | None  # such as "XNNPACK"; None when the runtime has no delegates
    delegate_partitions: Count | None  # None: unknown or without meaning for this runtime
    undelegated_ops: tuple[str, ...]  # op names the delegate left to the runtime, sorted
    leftovers: tuple[Leftover, ...]  # largest share first
    input_dtype: str
    output_dtype: str


class Accuracy(Record, frozen=True, kw_only=True):
    """Paired measurement against the float model on the same images. Rates are in 0..1."""

    images: Count
    top1_float: Share
    top1: Share
    drop: float  # top1_float - top1
    drop_low: float  # 95 % interval of the drop
    drop_high: float
    agreement: Share  # share of images with the same argmax as the float model
    flips_lost: Count  # right in float, wrong here
    flips_won: Count  # wrong in float, right here
    p_value: Share  # exact McNemar test, two-sided
    verdict: Literal["pass", "fail", "not enough images"]
    max_drop: float  # the drop that was allowed
    images_needed: Count | None  # further images for an answer; None when there is one


class Latency(Record, frozen=True, kw_only=True):
    """One thread, interleaved with the float artefact of the same format on the same host."""

    median_ms: float
    p90_ms: float
    ratio_to_float: float | None  # median of pairwise ratios; below 1 is faster; None: not measured
    samples: Count
    host: str  # the processor it was measured on: not the device


class Manifest(Record, frozen=True, kw_only=True):
    """All that a device needs to know of a bundle."""

    schema: Literal[1] = SCHEMA
    name: str
    target: str  # such as "tflite-int8"
    format: Literal["tflite", "onnx"]
    task: Literal["classification"]
    model: str  # file name of the model within the bundle
    input: Input
    output: Output
    preprocess: Preprocess
    labels: tuple[str, ...]
    files: tuple[File, ...]  # every file but the manifest itself
    truth: TruthLabel
    accuracy: Accuracy | None
    latency: Latency | None
    provenance: dict[str, Any]  # recipe, seeds, versions, checkpoint hash: for people, not for the runner


def parse(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        msgspec.ValidationError: a field is missing, unknown, of another type or out of range.
        msgspec.DecodeError: the bytes are not JSON.
    """
    return msgspec.json.decode(data, type=Manifest)


def dump(manifest: Manifest) -> bytes:
    """Write a manifest as indented JSON; `parse(dump(m)) == m`."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
