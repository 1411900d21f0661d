"""report.json: everything one export did, measured and declined; strict and versioned.

Other tools may read it, so a field never changes its meaning within one schema number.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from device_runner.manifest import Accuracy, Count, Latency, Positive, Record, Sha256, Share, TruthLabel
from shrink.errors import RequestError

SCHEMA: Final = 1
"""Version of the report format; a reader refuses any other."""

Verdict = Literal["pass", "fail", "not enough images"]


class Model(Record, frozen=True, kw_only=True):
    """The model as it was asked for."""

    spec: str  # such as "timm:deit_tiny_patch16_224"
    weights: str  # where they came from, in words: a file, "pretrained" or "random"
    outputs: Positive
    parameters: Count
    macs: Count  # multiply-accumulates of one inference
    checkpoint_sha256: Sha256 | None  # None: the weights came from no file


class SkippedImage(Record, frozen=True, kw_only=True):
    """An image that was left out."""

    ref: str  # its path or number in the data
    reason: str


class Data(Record, frozen=True, kw_only=True):
    """The images; calibration and evaluation never share one."""

    name: str
    calibration_images: Count
    evaluation_images: Count
    skipped: tuple[SkippedImage, ...] = ()
    notes: tuple[str, ...] = ()


class Reference(Record, frozen=True, kw_only=True):
    """The float model that everything is compared with."""

    framework: str  # such as "torch 2.13.0"
    top1: Share
    images: Count


class Parity(Record, frozen=True, kw_only=True):
    """Scores of the file on its real runtime against the float model's."""

    max_relative_error: float


class Timing(Record, frozen=True, kw_only=True):
    """The raw times behind an artifact's latency, and the doubts about them."""

    samples_ms: tuple[float, ...]
    ratio_low: float | None  # 95 % interval of the ratio to float
    ratio_high: float | None
    warnings: tuple[str, ...] = ()


class Declined(Record, frozen=True, kw_only=True):
    """Something a stage was asked for, or would usually do, and did not."""

    what: str
    why: str


class Rung(Record, frozen=True, kw_only=True):
    """One step that quantization tried."""

    what: str
    error: Annotated[float, msgspec.Meta(ge=0)]  # of the scores on held-out images, over their standard deviation
    kept: bool
    why: str = ""  # it was or was not, where the smallest error is not the reason


class Step(Record, frozen=True, kw_only=True):
    """Accuracy between the float model and the files, after something was done to the whole graph."""

    what: str  # such as "pruned 1.5x"
    top1: Share  # on the same images


class Artifact(Record, frozen=True, kw_only=True):
    """One target's file: what it is, what it cost, what it brought."""

    target: str
    bundle: str | None  # its directory, relative to the report; None: not written, for its verdict is "fail"
    file: str  # the model's file name within the bundle
    size_bytes: Count
    float_size_bytes: Positive | None  # the float file of the same format
    truth: TruthLabel
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    timing: Timing | None = None
    parity: Parity | None = None
    changes: tuple[str, ...] = ()
    rungs: tuple[Rung, ...] = ()
    skipped: tuple[Declined, ...] = ()


class Cross(Record, frozen=True, kw_only=True):
    """Share of images for which two artifacts name the same class."""

    a: str  # targets
    b: str
    agreement: Share


class Report(Record, frozen=True, kw_only=True):
    """All of one export."""

    schema: Literal[1] = SCHEMA
    command: tuple[str, ...]  # argv, as typed
    created: str  # ISO 8601, UTC
    model: Model
    data: Data
    reference: Reference
    artifacts: tuple[Artifact, ...]
    cross: tuple[Cross, ...] = ()
    steps: tuple[Step, ...] = ()  # in the order done
    verdict: Verdict
    notes: tuple[str, ...] = ()  # what makes the figures mean less than they seem to
    seconds: dict[str, float]  # stage -> how long it took, in the order run
    versions: dict[str, str]  # package -> version
    host: str


class _Head(msgspec.Struct):
    schema: int


def parse(data: bytes) -> Report:
    """Read a report.

    Raises:
        RequestError: not a report, a damaged one, or one of another version.
    """
    try:
        version = msgspec.json.decode(data, type=_Head).schema
        if version == SCHEMA:
            return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, RecursionError) as error:  # ValidationError is the first
        raise RequestError(
            "this is not a report that can be read",
            str(error),
            "give the report.json that shrink export wrote, unchanged",
        ) from error
    raise RequestError(
        f"the report has schema {version}",
        f"this version of shrink reads schema {SCHEMA}",
        "read it with the version of shrink that wrote it, or export again",
    )


def dump(report: Report) -> bytes:
    """Write a report as indented JSON; `parse(dump(r)) == r`."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
