"""What a measurement says, strict and versioned: one JSON object from any machine, so that all can be compared."""

from __future__ import annotations

from typing import Final, Literal

from device_runner.manifest import Count, Positive, Record, Sha256

PROBE_SCHEMA: Final = 1
"""Version of the record; a reader refuses any other."""


class Facts(Record, frozen=True, kw_only=True):
    """The machine, read from itself; None and () where it does not say."""

    machine: str  # such as "aarch64"
    model: str | None  # as the board names itself: "Raspberry Pi 5 Model B Rev 1.0"
    cpu: str | None  # as the kernel names the processor
    cpu_parts: tuple[str, ...]  # of ARM cores, without repetition: ("0xd0b",)
    features: tuple[str, ...]  # of the processor that matter to kernels: ("asimd", "asimddp")
    cores: Positive
    memory_mb: float | None
    kernel: str
    system: str | None  # the distribution
    libc: str
    python: str
    packages: dict[str, str]  # name -> version, of numpy, Pillow, msgspec and the runtimes
    emulated: str | None  # what gives the emulator away; None: nothing does


class Moment(Record, frozen=True, kw_only=True):
    """The state of the machine at one time; None and () where it does not say."""

    at_s: float  # since the measurement began
    governors: tuple[str, ...]  # of each frequency domain
    mhz: tuple[float, ...]  # now, of each domain
    max_mhz: tuple[float, ...]  # the most the hardware allows, of each domain
    celsius: float | None  # the hottest zone
    throttled: int | None  # the Raspberry Pi's get_throttled: bits 0 to 3 now, 16 to 19 since boot
    load: float | None  # runnable processes, mean of a minute
    pressure: float | None  # share of the last 10 s that some process waited for a core, percent
    available_mb: float | None
    swap_mb: float | None  # in use


class SelfTested(Record, frozen=True, kw_only=True):
    """The replay of the golden images; it passed, or there is no record."""

    images: Positive
    worst_pixel: Count  # of 255
    worst_output: float
    tolerance: float


class Region(Record, frozen=True, kw_only=True):
    """Instructions of one part of the work, counted by an emulator."""

    totals: tuple[Count, ...]  # of each repetition
    classes: dict[str, int]  # of the last repetition; they sum up to its total

    @property
    def total(self) -> int:
        """The median of the repetitions."""
        return sorted(self.totals)[len(self.totals) // 2]


class Instructions(Record, frozen=True, kw_only=True):
    """Comparable with counts of the same engine, dtype and processor, and with no other."""

    cpu: str  # the emulated processor
    regions: dict[str, Region]  # preprocess, invoke, postprocess


class Side(Record, frozen=True, kw_only=True):
    """One bundle on this machine. The images are those of the request, in its order."""

    bundle_sha256: Sha256  # of the manifest
    model_sha256: Sha256
    engine: str
    engine_version: str
    delegate: str | None  # that the runtime applied, such as "XNNPACK, 1 partition"; None: none, or it does not say
    selftest: SelfTested
    answers: tuple[int, ...]  # class of each image; -1: the image could not be read
    scores: tuple[tuple[tuple[int, float], ...], ...]  # of each image: the best classes with their scores, best first
    outputs_sha256: tuple[str, ...]  # of the raw output tensor of each image: equal bits, equal hash
    load_ms: float | None  # None for every time on an emulated machine
    first_ms: float | None
    samples_ms: tuple[tuple[float, ...], ...]  # of the invocation: repetition, round
    warm: tuple[bool, ...]  # of each repetition: whether times had settled before it was taken
    stages_ms: dict[str, float]  # medians of decode, resize, encode, postprocess
    memory_mb: float | None  # resident before this model was loaded
    peak_mb: float | None  # the most that was resident when it had answered all images; with both models loaded
    instructions: Instructions | None = None  # filled in by whoever runs the emulator


class ProbeRecord(Record, frozen=True, kw_only=True):
    """All of one measurement."""

    schema: Literal[1] = PROBE_SCHEMA
    facts: Facts
    threads: Positive
    candidate: Side
    against: Side | None  # timed in turns with the candidate
    moments: tuple[Moment, ...]
    unread: dict[str, str]  # image -> why it could not be read
