"""Runs and board results to compare, whose flips, sizes and times are known."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from msgspec import structs

from device_runner.manifest import Accuracy, Latency, TruthLabel
from device_runner.probe.record import Instructions, Region, SelfTested
from shrink.bench import result
from shrink.bench.result import Measured, Place, RatioToFloat, Result, Times
from shrink.report import schema
from shrink.report.schema import Artifact, Data, Model, Reference, Report, Timing
from shrink.runs import predictions
from shrink.runs.predictions import Answered, Predictions

N = 5000
TARGETS = ("tflite-int8", "onnx-int8")
HOST = "Example CPU @ 2.50GHz, 2 cores"
TRUTH = TruthLabel(
    int8_mac_share=1.0, dynamic_mac_share=0.0, int8_weight_share=1.0, macs=1000, ops=5, delegate=None,
    delegate_partitions=None, undelegated_ops=(), leftovers=(), input_dtype="float32", output_dtype="float32",
)  # fmt: skip


def answered(right: np.ndarray, labels: np.ndarray) -> Answered:
    sure = np.full(len(labels), 0.9, np.float16)
    return Answered(np.where(right, labels, (labels + 1) % 10).astype(np.int32), sure, sure)


def answers(lost: int = 0, won: int = 0, n: int = N, seed: int = 0) -> Predictions:
    """The float model and the old file name 90 % rightly; here `lost` of those are lost and `won` others won."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n).astype(np.int32)
    before = np.arange(n) >= n // 10
    now = before.copy()
    now[n // 10 : n // 10 + lost] = False
    now[:won] = True
    hashes = rng.integers(0, 256, (n, 16), dtype=np.uint8)
    files = {target: answered(now, labels) for target in TARGETS}
    refs = tuple(f"{i}.jpg" for i in range(n))
    classes = tuple(f"class {i}" for i in range(10))
    return Predictions(classes, refs, hashes, labels, {}, answered(before, labels), files)


def artifact(target: str, size: int, ratio: float) -> Artifact:
    """A file that takes `ratio` times as long as its float file; the float file takes 10 ms."""
    samples = tuple(10.0 * ratio * (1 + 0.01 * math.sin(i)) for i in range(60))
    accuracy = Accuracy(
        images=N, top1_float=0.9, top1=0.9, drop=0.0, drop_low=-0.01, drop_high=0.01, agreement=1.0, flips_lost=0,
        flips_won=0, p_value=1.0, verdict="pass", max_drop=0.01, images_needed=None,
    )  # fmt: skip
    return Artifact(
        target=target,
        bundle=None,
        file=f"model.{target.partition('-')[0]}",
        size_bytes=size,
        float_size_bytes=4_000_000,
        truth=TRUTH,
        accuracy=accuracy,
        latency=Latency(median_ms=10 * ratio, p90_ms=11 * ratio, ratio_to_float=ratio, samples=60, host=HOST),
        timing=Timing(samples_ms=samples, ratio_low=ratio * 0.99, ratio_high=ratio * 1.01),
    )


def report(size: int = 1_000_000, ratio: float = 0.4, host: str = HOST) -> Report:
    return Report(
        command=("shrink", "export", "model"),
        created="2026-11-23T14:30:00Z",
        model=Model(spec="m", weights="w", outputs=10, parameters=5, macs=9, checkpoint_sha256=None),
        data=Data(name="photos", calibration_images=256, evaluation_images=N),
        reference=Reference(framework="torch 2.13.0", top1=0.9, images=N),
        artifacts=tuple(artifact(target, size, ratio) for target in TARGETS),
        verdict="pass",
        seconds={"all": 1.0},
        versions={"ai-edge-litert": "2.3.0", "onnxruntime": "1.32.0"},
        host=host,
    )


def write(folder: Path, given: Report, kept: Predictions | None) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.json").write_bytes(schema.dump(given))
    if kept is not None:
        (folder / predictions.NAME).write_bytes(predictions.dump(kept))
    return folder


def reordered(p: Predictions) -> Predictions:
    """The same answers to the same images, which lie in another order."""
    order = np.random.default_rng(5).permutation(len(p))

    def rows(a: Answered) -> Answered:
        return Answered(a.top1[order], a.confidence[order], a.margin[order])

    return replace(
        p,
        refs=tuple(p.refs[i] for i in order),
        hashes=p.hashes[order],
        labels=p.labels[order],
        reference=rows(p.reference),
        files={name: rows(a) for name, a in p.files.items()},
    )


def board(preprocess: int = 2_000_000, lost: int = 0, ms: float | None = None, cpu: str = "cortex-a72") -> Result:
    """A result of `shrink bench`: emulated with counts, or on a real machine with times."""
    images = tuple(
        result.ImageRef(ref=f"{i}", sha256=hashlib.sha256(bytes([i])).hexdigest(), label=i % 10) for i in range(200)
    )
    times = None if ms is None else Times(
        n=1024, seconds=10.0, min=ms, p50=ms, p90=ms * 1.02, p99=ms * 1.1, max=ms * 2, mean=ms, std=0.1,
        p90_low=ms, p90_high=ms * 1.1, repeats_p50=(ms * 0.99, ms, ms * 1.01), retention=1.0,
    )  # fmt: skip
    regions = {
        name: Region(totals=(count,) * 3, classes={"all": count})
        for name, count in {"preprocess": preprocess, "invoke": 50_000_000, "postprocess": 30_000}.items()
    }
    side = Measured(
        name="m", target="tflite-int8", bundle_sha256="0" * 64, model_sha256="1" * 64, model_bytes=500_000,
        engine="ai-edge-litert", engine_version="2.3.0", delegate=None,
        selftest=SelfTested(images=16, worst_pixel=0, worst_output=0.0, tolerance=0.1),
        accuracy=result.Accuracy(images=200, right=200 - lost, top1=1 - lost / 200, low=0.9, high=1.0),
        answers=tuple((i + (i < lost)) % 10 for i in range(200)), scores=(), outputs_sha256=(), times=times,
        samples_ms=(), load_ms=None, first_ms=None, stages_ms={}, memory_mb=None, peak_mb=None,
        instructions=Instructions(cpu=cpu, regions=regions) if ms is None else None, no_instructions=None,
    )  # fmt: skip
    return Result(
        complete=True, problem=None, verdict="functional-only" if ms is None else "trusted", reasons=(),
        place=Place(url="qemu:cortex-a72" if ms is None else "ssh://pi@pi", kind="qemu" if ms is None else "ssh",
                    emulated=None),
        facts=None, threads=1, data=result.Data(name="d", sha256="2" * 64, images=images, notes=(), unread={}),
        candidate=side, against=None if ms is None else structs.replace(side, target="tflite-fp32"),
        ratio=None if ms is None else RatioToFloat(median=ms / 10, low=ms / 10.1, high=ms / 9.9),
        moments=(), command=("shrink", "bench"), versions={},
    )  # fmt: skip
