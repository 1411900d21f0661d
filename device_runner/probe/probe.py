"""One measurement: self-test, answers on images, times in turns with another bundle, memory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runner import postprocess, preprocess
from device_runner.bundle import Bundle, open_bundle
from device_runner.contract import GOLDEN_NAME
from device_runner.engines import open_engine
from device_runner.engines.base import Engine
from device_runner.errors import Problem
from device_runner.golden import read_golden
from device_runner.probe.facts import Watch, facts, memory_mb
from device_runner.probe.images import read_images
from device_runner.probe.record import ProbeRecord, SelfTested, Side
from device_runner.probe.timing import Limits, series, timed
from device_runner.selftest import selftest

BEST = 5  # scores kept of each image
UNREAD = -1
STAGE_SAMPLES = 20
DIGITS = 4  # of milliseconds: below a microsecond is noise

Say = Callable[[str, int, int], None]  # what is being done, how many of how many are


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure."""

    bundle: Path
    images: Path
    against: Path | None = None  # a bundle to time in turns with it, usually the float one
    engine: str | None = None
    threads: int = 1
    repeats: int = 5  # series of times; 0: none
    limits: Limits = field(default_factory=Limits)  # of each series
    pause_s: float = 0.0  # between two series, so that the machine cools down
    seed: int = 0  # of the order within rounds


@dataclass(slots=True)
class _Loaded:
    """A bundle on its engine, and what has been found of it so far."""

    bundle: Bundle
    engine: Engine
    memory_mb: float | None
    load_ms: float
    first_ms: float
    selftest: SelfTested
    answers: list[int] = field(default_factory=list)
    scores: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    samples_ms: list[tuple[float, ...]] = field(default_factory=list)
    stages_ms: dict[str, float] = field(default_factory=dict)

    @property
    def golden_image(self) -> bytes:
        return read_golden(self.bundle.files[GOLDEN_NAME]).image(0)

    def pixels(self, data: bytes) -> NDArray[np.uint8]:
        return preprocess.pixels(preprocess.decode(data), self.bundle.manifest.preprocess)

    def prepare(self, data: bytes) -> NDArray[np.generic]:
        return self.tensor(self.pixels(data))

    def tensor(self, pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
        return preprocess.tensor(pixels, self.bundle.manifest.preprocess, self.bundle.manifest.input)

    def real(self, raw: NDArray[np.generic]) -> NDArray[np.float32]:
        return postprocess.scores(raw, self.bundle.manifest.output)


def measure(request: Request, say: Say) -> ProbeRecord:
    """Measure as requested, and say how far it is.

    On an emulated machine no time is taken: it would be the emulator's.

    Raises:
        BundleError, EngineError, SelfTestError, ImageError: as opening, self-testing and reading raise them.
    """
    here = facts()
    images = read_images(request.images)
    with Watch() as watch:
        sides = {"candidate": _load(request.bundle, request, say)}
        if request.against is not None:
            sides["against"] = _load(request.against, request, say)
        unread = _answer(sides, images, say)
        warm: tuple[bool, ...] = ()
        if here.emulated is None and request.repeats:
            warm = _time(sides, request, watch, say)
            _time_stages(sides)
    found = {name: _side(side, warm, counts_time=here.emulated is None) for name, side in sides.items()}
    return ProbeRecord(
        facts=here,
        threads=request.threads,
        candidate=found["candidate"],
        against=found.get("against"),
        moments=tuple(watch.moments),
        unread=unread,
    )


def _load(path: Path, request: Request, say: Say) -> _Loaded:
    say("load and self-test", 0, 1)
    before = memory_mb("VmRSS")
    bundle = open_bundle(path)
    start = time.perf_counter_ns()
    engine = open_engine(bundle.model, bundle.manifest.format, engine=request.engine, threads=request.threads)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    zero = np.zeros(bundle.manifest.input.shape, bundle.manifest.input.dtype)
    first_ms = timed(lambda: engine.run(zero))
    tested = selftest(bundle, engine)
    record = SelfTested(
        images=tested.n,
        worst_pixel=tested.worst_pixel,
        worst_output=tested.worst_output,
        tolerance=tested.tolerance,
    )
    return _Loaded(bundle, engine, before, load_ms, first_ms, record)


def _answer(sides: dict[str, _Loaded], images: list[tuple[str, bytes]], say: Say) -> dict[str, str]:
    """Every bundle names every image; image -> why it could not be read."""
    unread: dict[str, str] = {}
    for done, (name, data) in enumerate(images):
        say("answer images", done, len(images))
        for side in sides.values():
            try:
                _answer_one(side, data)
            except Problem as problem:
                unread[name] = problem.what
                side.answers.append(UNREAD)
                side.scores.append(())
                side.hashes.append("")
    return unread


def _answer_one(side: _Loaded, data: bytes) -> None:
    raw = side.engine.run(side.prepare(data))
    real = side.real(raw)
    best = np.argsort(-real, kind="stable")[:BEST]
    side.answers.append(int(best[0]))
    side.scores.append(tuple((int(i), float(real[i])) for i in best))
    side.hashes.append(hashlib.sha256(np.ascontiguousarray(raw).data).hexdigest())


def _time(sides: dict[str, _Loaded], request: Request, watch: Watch, say: Say) -> tuple[bool, ...]:
    """Several series, in turns; whether each began warm."""
    rng = np.random.default_rng(request.seed)
    runs = {name: _inference(side) for name, side in sides.items()}
    warm = []
    for repeat in range(request.repeats):
        say("time", repeat, request.repeats)
        if repeat and request.pause_s:
            time.sleep(request.pause_s)
        times, was_warm = series(runs, request.limits, rng, time.perf_counter_ns)
        warm.append(was_warm)
        for name, side in sides.items():
            side.samples_ms.append(tuple(round(ms, DIGITS) for ms in times[name]))
        watch.look()
    return tuple(warm)


def _inference(side: _Loaded) -> Callable[[], object]:
    return partial(side.engine.run, side.prepare(side.golden_image))


def _time_stages(sides: dict[str, _Loaded]) -> None:
    """Medians of what surrounds the model, on a golden image."""
    for side in sides.values():
        data, m = side.golden_image, side.bundle.manifest
        picture, pixels = preprocess.decode(data), side.pixels(data)
        raw = side.engine.run(side.tensor(pixels))
        stages: dict[str, Callable[[], object]] = {
            "decode": partial(preprocess.decode, data),
            "resize": partial(preprocess.pixels, picture, m.preprocess),
            "encode": partial(side.tensor, pixels),
            "postprocess": partial(postprocess.confidences, raw, m.output),
        }
        for name, run in stages.items():
            side.stages_ms[name] = round(float(np.median([timed(run) for _ in range(STAGE_SAMPLES)])), DIGITS)


def _side(side: _Loaded, warm: tuple[bool, ...], *, counts_time: bool) -> Side:
    bundle = side.bundle
    return Side(
        bundle_sha256=bundle.sha256,
        model_sha256=hashlib.sha256(bundle.model).hexdigest(),
        engine=side.engine.name,
        engine_version=side.engine.version,
        delegate=side.engine.delegate,
        selftest=side.selftest,
        answers=tuple(side.answers),
        scores=tuple(side.scores),
        outputs_sha256=tuple(side.hashes),
        load_ms=round(side.load_ms, DIGITS) if counts_time else None,
        first_ms=round(side.first_ms, DIGITS) if counts_time else None,
        samples_ms=tuple(side.samples_ms),
        warm=warm,
        stages_ms=side.stages_ms,
        memory_mb=side.memory_mb if counts_time else None,
        peak_mb=memory_mb("VmHWM") if counts_time else None,
    )
