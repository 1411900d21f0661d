"""What is asked and found out about one architecture of the zoo, as data."""

from __future__ import annotations

from typing import Literal

import msgspec

from benchmarks.rows import Failure

Effort = Literal["fast", "balanced", "thorough"]
"""What `shrink export --quantize` takes."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    spec: str  # as `shrink export` takes it
    out: str  # file for the result
    scratch: str  # existing directory, removed by the caller
    shared: str  # the optional data folder
    cache: str  # what peers made before
    turns: str  # directory of the runs that share this machine, see benchmarks.turns
    targets: tuple[str, ...]  # files to make
    calibrate: int  # images that set the ranges
    judge: int  # other images, on which files are compared with torch
    timing: bool
    peers: tuple[str, ...]  # in benchmarks.peers.PEERS
    peer_python: str
    min_rounds: int
    max_seconds: float  # of timing, per format
    seed: int
    quantize: Effort  # of our own int8 files


class Part(msgspec.Struct, kw_only=True):
    """One file: how it was made, what it is, what it answers, how long it takes."""

    failure: Failure | None = None
    stage: str = ""  # where it failed: make, load or run
    seconds: float = 0.0  # of a processor to make it, from the capture on; of a peer, by the clock
    size_bytes: int = 0
    int8_macs: float = 0.0  # share of MACs in int8
    dynamic_macs: float = 0.0  # the part of it with run-time ranges
    ops: int = 0
    partitions: int | None = None  # of the delegate
    undelegated: tuple[str, ...] = ()
    max_relative_error: float | None = None  # largest score difference / largest score of torch
    noise: float | None = None  # rms score difference / spread of torch's scores between images
    simulated_noise: float | None = None  # the same of the simulation of an int8 file of ours
    cosine: float | None = None  # of all scores with torch's
    agreement: float | None = None  # share of images with torch's best class
    samples_ms: tuple[float, ...] = ()  # one per round; the same rounds for all files of a format
    changes: tuple[str, ...] = ()
    version: str = ""  # of the peer


class Result(msgspec.Struct, kw_only=True):
    """All that was found out about an architecture."""

    failure: Failure | None = None  # of loading or capturing, which leaves no parts
    parameters: int = 0
    macs: int = 0
    input_shape: tuple[int, ...] = ()
    images: str = ""  # where they came from
    sensitivity: float = 0.0  # change of torch's scores, over the largest, for an input changed by one millionth
    distinct_answers: int = 0  # classes torch names among the judged images
    timing_others_busy: dict[str, float] = {}  # format -> cores' worth of other work while it was timed
    parts: dict[str, Part] = {}
