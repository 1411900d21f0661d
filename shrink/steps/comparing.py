"""What `shrink compare` does: two runs become sides, the sides are compared, the gates are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runner.bundle import open_bundle
from device_runner.contract import GOLDEN_NAME
from device_runner.engines import open_engine
from device_runner.golden import read_golden
from device_runner.preprocess import tensor
from shrink.bench.latency import Ratio, Samples, interleave, ratio
from shrink.bench.result import Measured, Result
from shrink.compare.comparison import Comparison, compare
from shrink.compare.estimates import measured
from shrink.compare.gates import Estimate, Gate
from shrink.compare.sides import Answers, Side, Speed
from shrink.errors import RequestError
from shrink.progress import Progress
from shrink.report.schema import Artifact, Report
from shrink.runs.pairing import Keyed, keyed
from shrink.runs.predictions import HASH_BYTES
from shrink.steps.runs import Run, read
from shrink.steps.threads import one_thread_per_op

STAGES = 1
RUNTIMES = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}  # format -> package whose version matters


def compare_runs(
    old_path: Path, new_path: Path, gates: Sequence[Gate], *, force: bool, measure: bool, progress: Progress
) -> Comparison:
    """Compare two runs, or two results of `shrink bench`.

    Args:
        force: compare times and instructions of unlike machines, too.
        measure: run the files of both in turns now.

    Raises:
        RequestError: no runs, no file in common, different images, or a gate that cannot be judged.
    """
    old, new = read(old_path), read(new_path)
    if isinstance(old, Run) != isinstance(new, Run):
        why = "one is a directory of shrink export, the other a result of shrink bench"
        raise RequestError("the two are not of one kind", why, "compare two runs, or two results")
    pairs = list(_pairs(old, new))
    if not pairs:
        why = f"{old_path} has {_targets(old)}, {new_path} has {_targets(new)}"
        fix = "name two bundles, such as out/old/tflite-int8 out/new/onnx-int8"
        raise RequestError("the two have no file in common", why, fix)
    timed = _measure(old, new, pairs, progress) if measure else {}
    return compare(pairs, gates, force=force, timed=timed)


def _targets(one: Run | Result) -> str:
    if isinstance(one, Run):
        return ", ".join(one.targets)
    return one.candidate.target if one.candidate else "nothing"


def _pairs(old: Run | Result, new: Run | Result) -> Iterator[tuple[Side, Side]]:
    """Files of the same target; two single ones belong together whatever they are."""
    if isinstance(old, Result) and isinstance(new, Result):
        if old.candidate and new.candidate:
            yield _of_result(old, old.candidate), _of_result(new, new.candidate)
    elif isinstance(old, Run) and isinstance(new, Run):
        if len(old.targets) == len(new.targets) == 1:
            yield _of_run(old, old.targets[0]), _of_run(new, new.targets[0])
        else:
            for target in new.targets:
                if target in old.targets:
                    yield _of_run(old, target), _of_run(new, target)


# --- a file of an export


def _of_run(run: Run, target: str) -> Side:
    artifact, kept = run.artifact(target), run.predictions
    has_answers = kept is not None and target in kept.files
    return Side(
        run=run.name,
        target=target,
        size_bytes=artifact.size_bytes,
        answers=Answers(keyed(kept), kept.files[target].top1.astype(np.int64)) if kept and has_answers else None,
        speed=_speed(run.report, artifact),
        machine=_machine(run.report, artifact),
    )


def _machine(report: Report, artifact: Artifact) -> dict[str, str]:
    runtime = RUNTIMES["tflite" if artifact.file.endswith(".tflite") else "onnx"]
    return {"machine": report.host, "threads": "1", "runtime": f"{runtime} {report.versions.get(runtime, 'unknown')}"}


def _speed(report: Report, artifact: Artifact) -> Speed | None:
    if artifact.latency is None or artifact.timing is None or not artifact.timing.samples_ms:
        return None
    timing, model = artifact.timing, report.model
    low, high = _median_interval(np.sort(artifact.timing.samples_ms))
    found = None
    if artifact.latency.ratio_to_float is not None and timing.ratio_low is not None and timing.ratio_high is not None:
        found = Ratio(artifact.latency.ratio_to_float, timing.ratio_low, timing.ratio_high)
    float_file = f"{model.spec} {model.checkpoint_sha256} {model.macs} {artifact.float_size_bytes}"
    return Speed(artifact.latency.median_ms, low, high, float_file if found else None, found)


def _median_interval(ordered: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the median of sorted samples, by order statistics: the ratio to a constant."""
    ones = Samples((1.0,) * len(ordered))
    found = ratio(Samples(tuple(map(float, ordered))), ones)
    return found.low, found.high


# --- a file on a board


def _of_result(result: Result, side: Measured) -> Side:
    facts = result.facts
    machine = {
        "machine": (facts.model or facts.cpu or facts.machine) if facts else result.place.url,
        "threads": str(result.threads),
        "runtime": f"{side.engine} {side.engine_version}",
        "emulated": side.instructions.cpu if side.instructions else str(result.place.emulated),
    }
    refs = result.data.images
    images = Keyed(
        tuple(bytes.fromhex(one.sha256)[:HASH_BYTES] for one in refs),
        np.array([one.label for one in refs]),
        tuple(one.ref for one in refs),
    )
    return Side(
        run=f"{result.place.url} {result.data.name}",
        target=side.target,
        size_bytes=side.model_bytes,
        answers=Answers(images, np.array(side.answers)),
        speed=_speed_on_board(result, side),
        instructions=_instructions(side),
        machine=machine,
        doubt="" if result.verdict == "trusted" else result.verdict,
    )


def _speed_on_board(result: Result, side: Measured) -> Speed | None:
    if side.times is None or result.verdict == "functional-only":
        return None
    repeats = side.times.repeats_p50 or (side.times.p50,)
    found = Ratio(result.ratio.median, result.ratio.low, result.ratio.high) if result.ratio else None
    other = result.against.model_sha256 if result.against else None
    return Speed(side.times.p50, min(repeats), max(repeats), other, found)


def _instructions(side: Measured) -> dict[str, int] | None:
    if side.instructions is None:
        return None
    return {name: region.total for name, region in side.instructions.regions.items()}


# --- both now


def _measure(
    old: Run | Result, new: Run | Result, pairs: Sequence[tuple[Side, Side]], progress: Progress
) -> dict[str, Estimate]:
    """Both files of every pair in turns on this machine."""
    if not isinstance(old, Run) or not isinstance(new, Run):
        why = "a result of shrink bench holds no file"
        raise RequestError("there is nothing to run", why, "leave --measure out, or give two runs of shrink export")
    found: dict[str, Estimate] = {}
    with one_thread_per_op(), progress.stage("run both in turns") as stage:
        for a, b in stage.track(list(pairs)):
            runs = {"old": _inference(old, a.target), "new": _inference(new, b.target)}
            samples = interleave(runs, rng=np.random.default_rng(0), min_samples=100, min_seconds=2.0)
            both = ratio(samples["new"], samples["old"])
            found[b.target] = measured(both, samples["old"].median, samples["new"].median)
    return found


def _inference(run: Run, target: str) -> Callable[[], object]:
    """One inference of a bundle on its first golden image."""
    folder = run.artifact(target).bundle
    if folder is None or not (run.path / folder).is_dir():
        fix = "export it again, or leave --measure out"
        raise RequestError(f"{run.name} has no bundle of {target} to run", "its directory is not there", fix)
    bundle = open_bundle(run.path / folder)
    engine = open_engine(bundle.model, bundle.manifest.format)
    pixels = read_golden(bundle.files[GOLDEN_NAME]).pixels[0]
    x = tensor(pixels, bundle.manifest.preprocess, bundle.manifest.input)
    return lambda: engine.run(x)
