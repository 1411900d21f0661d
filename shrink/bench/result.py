"""The result of a measurement on a board: one JSON object, strict and versioned, the same for every kind of board."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from device_runner.manifest import Count, Record, Sha256, Share
from device_runner.probe.record import Facts, Instructions, Moment, SelfTested
from shrink.errors import RequestError

RESULT_SCHEMA: Final = 1
"""Version of the result; a reader refuses any other."""

Verdict = Literal["trusted", "indicative", "functional-only"]
Answer = Annotated[int, msgspec.Meta(ge=-1)]


class Place(Record, frozen=True, kw_only=True):
    """Where it was measured."""

    url: str
    kind: Literal["local", "ssh", "adb", "qemu"]
    emulated: str | None  # why it is taken for an emulation; None: a real machine


class ImageRef(Record, frozen=True, kw_only=True):
    """One image that was answered."""

    ref: str  # tells it apart in its data: "cat/7.jpg", "eval/17"
    sha256: Sha256  # of the file that was sent
    label: Count


class Data(Record, frozen=True, kw_only=True):
    """The images; results can be compared image by image when `sha256` is equal."""

    name: str
    sha256: Sha256  # of all images in their order
    images: tuple[ImageRef, ...]
    notes: tuple[str, ...]  # what was passed over, and why
    unread: dict[str, str]  # ref -> why the board could not read it


class Accuracy(Record, frozen=True, kw_only=True):
    """Top-1 on the board, with its own kernels."""

    images: Count  # that were answered
    right: Count
    top1: Share
    low: Share  # 95 % interval, Wilson's
    high: Share


class Times(Record, frozen=True, kw_only=True):
    """Milliseconds of one invocation, of all repetitions together."""

    n: Count
    seconds: float  # spent in invocations
    min: float
    p50: float
    p90: float
    p99: float
    max: float
    mean: float
    std: float
    p90_low: float  # 95 % interval of p90, by order statistics
    p90_high: float
    repeats_p50: tuple[float, ...]  # of each repetition
    retention: float  # speed of the last third of the samples over that of the first; below 1 it slowed down


class Measured(Record, frozen=True, kw_only=True):
    """One bundle on the board. `answers`, `scores` and `outputs_sha256` are in the order of `Data.images`."""

    name: str
    target: str
    bundle_sha256: Sha256  # of the manifest
    model_sha256: Sha256
    model_bytes: Count
    engine: str
    engine_version: str
    delegate: str | None
    selftest: SelfTested
    accuracy: Accuracy
    answers: tuple[Answer, ...]  # class of each image; -1: it could not be read
    scores: tuple[tuple[tuple[int, float], ...], ...]  # the best five classes of each image, best first
    outputs_sha256: tuple[str, ...]  # of each raw output tensor
    times: Times | None  # None: emulated
    samples_ms: tuple[tuple[float, ...], ...]  # as taken: repetition, round
    load_ms: float | None
    first_ms: float | None
    stages_ms: dict[str, float]  # medians of decode, resize, encode, postprocess
    memory_mb: float | None  # resident before the model was loaded
    peak_mb: float | None
    instructions: Instructions | None
    no_instructions: str | None  # why there are none


class RatioToFloat(Record, frozen=True, kw_only=True):
    """Time of the bundle over time of the other one, of the same rounds; below 1 is faster. 95 % interval."""

    median: float
    low: float
    high: float


class Result(Record, frozen=True, kw_only=True):
    """One run of `shrink bench`."""

    schema: Literal[1] = RESULT_SCHEMA
    kind: Literal["bench"] = "bench"
    complete: bool  # False: the run broke off, and nothing in it counts
    problem: str | None  # why it is not complete
    verdict: Verdict  # whether the times can be trusted
    reasons: tuple[str, ...]  # why not more
    place: Place
    facts: Facts | None
    threads: int
    data: Data
    candidate: Measured | None
    against: Measured | None
    ratio: RatioToFloat | None
    moments: tuple[Moment, ...]
    command: tuple[str, ...]
    versions: dict[str, str]  # of shrink and the runner


def dump(result: Result) -> bytes:
    """As indented JSON; `parse(dump(r)) == r`."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def parse(data: bytes, name: str = "the result") -> Result:
    """Read a result.

    Raises:
        RequestError: not a result, or one of another schema version.
    """
    try:
        return msgspec.json.decode(data, type=Result)
    except (msgspec.MsgspecError, RecursionError) as error:
        found = _schema(data)
        if found not in (None, RESULT_SCHEMA):
            why = f"it has schema {found}, and this version of shrink reads {RESULT_SCHEMA}"
            raise RequestError(f"{name} is of another version", why, "measure again") from error
        raise RequestError(f"{name} is no result of `shrink bench`", str(error), "measure again") from error


def _schema(data: bytes) -> object:
    try:
        content = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return content.get("schema") if isinstance(content, dict) else None
