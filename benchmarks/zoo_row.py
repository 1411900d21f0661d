"""One architecture of the zoo benchmark; runs in a process of its own, so that a crash costs one row.

What is known is written after every step: what was measured before a crash is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks import peers, turns, zoo_times
from benchmarks.facts import watch_others
from benchmarks.images import some_images
from benchmarks.randomize import MILLIONTH, randomize
from benchmarks.rows import Failure, encode, write_whole
from benchmarks.steps import make
from benchmarks.zoo_result import Ask, Part, Result
from device_runner.engines import open_engine
from device_runner.manifest import Input, Output
from device_runner.preprocess import encode as encode_input
from shrink import models, targets
from shrink.data.images import Images
from shrink.data.stream import stream
from shrink.errors import Problem
from shrink.graph.capture import capture
from shrink.inspect.ops import Format, Port
from shrink.inspect.truth import Inspection, inspect_bytes
from shrink.models import Model
from shrink.verify.answers import Candidate, most_of_rounding, relative_error

FORMATS = ("tflite", "onnx")
STATISTICS_IMAGES = 32  # that batch norms take their statistics from
Floats = NDArray[np.float32]


def measure(ask: Ask) -> Result:
    """Everything about one architecture; failures are part of the result."""
    torch.set_num_threads(1)
    result = Result()
    try:
        _measure(ask, result)
    except Exception as error:  # whatever happens is a finding
        result.failure = explain(error)
    _keep(ask, result)
    return result


def _measure(ask: Ask, result: Result) -> None:
    others = max(ask.calibrate, STATISTICS_IMAGES)
    images = some_images(Path(ask.shared), Path(ask.scratch, "images"), others + ask.judge)
    chosen = np.linspace(0, len(images) - 1, ask.judge).round().astype(np.int64)
    unjudged = images.subset(np.setdiff1d(np.arange(len(images)), chosen))
    model, calibration = random_model(ask, unjudged), unjudged.subset(np.arange(ask.calibrate))
    judged = Judged.of(model, images.subset(chosen))
    result.parameters = sum(p.numel() for p in model.module.parameters())
    result.input_shape, result.images = model.input_shape, images.name
    result.sensitivity = relative_error(scores(model.module, judged.x * np.float32(1 + MILLIONTH)), judged.wanted)
    result.distinct_answers = len(np.unique(judged.wanted.argmax(1)))
    files, contents = _ours(ask, result, model, calibration, judged)
    files |= _theirs(ask, result, model, calibration, judged, contents)
    if ask.timing:
        for fmt in FORMATS:
            _time(fmt, files, judged.x[0], result, ask)
            _keep(ask, result)


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """A model file and its runtime, which has answered."""

    model: bytes
    candidate: Candidate


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Images that no range was taken from, and what torch answers."""

    x: Floats  # (n, C, H, W)
    wanted: Floats  # (n, classes)

    @classmethod
    def of(cls, model: Model, images: Images) -> Judged:
        """One by one, as the files will be run."""
        x = pixels(model, images)
        return cls(x, scores(model.module, x))


def _ours(
    ask: Ask, result: Result, model: Model, calibration: Images, judged: Judged
) -> tuple[dict[str, File], dict[str, bytes]]:
    """The files of shrink that answer, and the content of all that could be made."""
    files: dict[str, File] = {}
    contents: dict[str, bytes] = {}
    captured = capture(model.module, model.input_shape)
    for target in map(targets.load, ask.targets):
        part = result.parts[target.name] = Part()
        with _failing(part), _seconds(part):
            _begin(part, "make", ask, result)
            written = make(model, captured, target, calibration, ask.quantize)
            part.changes, contents[target.name] = written.changes, written.model
            _describe(part, written.inspection)
            result.macs = max(result.macs, written.inspection.truth.macs)
            _begin(part, "run", ask, result)
            _judge(part, written.candidate, judged)
            if written.chosen is not None:
                check_simulated(part, scores(written.chosen.simulated(), judged.x), judged.wanted)
            files[target.name] = File(written.model, written.candidate)
        _keep(ask, result)
    return files, contents


def _theirs(
    ask: Ask, result: Result, model: Model, calibration: Images, judged: Judged, contents: dict[str, bytes]
) -> dict[str, File]:
    """What the peers make of our float files, as far as it answers."""
    files: dict[str, File] = {}
    tensors = pixels(model, calibration)
    for name in ask.peers:
        source = contents.get(peers.PEERS[name].reads)
        if source is None:
            continue
        part = result.parts[name] = Part()
        with _failing(part):
            _begin(part, "make", ask, result)
            file = _peer(part, name, source, tensors, ask)
            if file is not None:
                _begin(part, "run", ask, result)
                _judge(part, file.candidate, judged)
                files[name] = file
        _keep(ask, result)
    return files


def random_model(ask: Ask, images: Images) -> Model:
    """The architecture with random weights that are not degenerate, from a checkpoint as a user would have it."""
    fresh = models.load(ask.spec)
    few = torch.from_numpy(pixels(fresh, images.subset(np.arange(min(STATISTICS_IMAGES, len(images))))))
    randomize(fresh.module, [image[None] for image in few], seed=ask.seed)
    checkpoint = Path(ask.scratch, "weights.pt")
    torch.save(fresh.module.state_dict(), checkpoint)
    return models.load(ask.spec, checkpoint=checkpoint)


def pixels(model: Model, images: Images) -> Floats:
    """Normalized images, (n, C, H, W)."""
    return np.concatenate([batch.x for batch in stream(images, model.preprocess)])


def explain(error: BaseException) -> Failure:
    """Three lines for any error; a bug's say where it is."""
    if isinstance(error, Problem):
        return Failure(what=_clean(error.what), why=_clean(error.why), fix=_clean(error.fix))
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return Failure(what=f"bug: {type(error).__name__}", why=_clean(first), fix=f"look at {_where(error)}")


def _clean(text: str) -> str:
    """One line without the folders of this machine."""
    home = str(Path(sys.prefix)) + "/"
    return " ".join(text.replace(home, "").replace(str(Path.cwd()) + "/", "").split())[:600]


def _where(error: BaseException) -> str:
    """`shrink/graph/clean.py:78`: the deepest line of this repository, or the deepest of all."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        lines.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    root = str(Path(__file__).resolve().parents[1])
    mine = [line for line in lines if line[0].startswith(root)] or lines or [("", 0)]
    return f"{mine[-1][0].removeprefix(root).lstrip('/')}:{mine[-1][1]}"


@contextmanager
def _failing(part: Part) -> Iterator[None]:
    """Turn whatever a part raises into its failure."""
    try:
        yield
        part.stage = part.stage if part.failure else ""
    except Exception as error:
        part.failure = explain(error)


def _begin(part: Part, stage: str, ask: Ask, result: Result) -> None:
    """Write down what is about to happen, for the case that it ends this process."""
    part.stage = stage
    _keep(ask, result)


@contextmanager
def _seconds(part: Part) -> Iterator[None]:
    """Of the processor: while another row takes times, this one stands still."""
    start = time.process_time()
    try:
        yield
    finally:
        part.seconds = round(time.process_time() - start, 2)


def _describe(part: Part, inspection: Inspection) -> None:
    truth = inspection.truth
    part.size_bytes, part.ops = inspection.size_bytes, truth.ops
    part.int8_macs, part.dynamic_macs = round(truth.int8_mac_share, 4), round(truth.dynamic_mac_share, 4)
    part.partitions, part.undelegated = truth.delegate_partitions, truth.undelegated_ops


def _judge(part: Part, candidate: Candidate, judged: Judged) -> None:
    """Compare the scores of a file on its runtime with torch's."""
    wanted = judged.wanted
    given = np.concatenate([candidate.run(image[None]) for image in judged.x])
    part.max_relative_error = relative_error(given, wanted)
    part.agreement = float((given.argmax(1) == wanted.argmax(1)).mean())
    part.cosine = float((given * wanted).sum() / max(np.linalg.norm(given) * np.linalg.norm(wanted), 1e-12))
    part.noise = noise(given, wanted)


def scores(module: nn.Module, x: Floats) -> Floats:
    """What torch answers to images (n, C, H, W), one by one; (n, classes)."""
    with torch.no_grad():
        return np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in x])


def noise(given: Floats, wanted: Floats) -> float:
    """Root mean square difference of scores, over the deviation of the wanted ones between images."""
    spread = (wanted - wanted.mean(0)) if len(wanted) > 1 else wanted
    return float(np.sqrt(((given - wanted) ** 2).mean() / max((spread**2).mean(), 1e-24)))


def check_simulated(part: Part, simulated: Floats, wanted: Floats) -> None:
    """A file that errs much more than its simulation was written wrongly, or its runtime computes it so."""
    part.simulated_noise = noise(simulated, wanted)
    if part.noise is None or not part.noise <= most_of_rounding(part.simulated_noise):
        part.failure = Failure(
            what="the file errs more than its simulation",
            why=f"noise {part.noise:.3f}, in the simulation {part.simulated_noise:.3f}",
            fix="look at its layers with shrink debug",
        )


def _peer(part: Part, name: str, source: bytes, tensors: Floats, ask: Ask) -> File | None:
    made = peers.quantize(name, ask.peer_python, source, tensors, Path(ask.scratch), Path(ask.cache))
    part.failure, part.version, part.seconds = made.failure, made.version, made.seconds
    if made.model is None:
        return None
    part.stage = "load"
    fmt: Format = "tflite" if peers.PEERS[name].reads.startswith("tflite") else "onnx"
    inspection = inspect_bytes(made.model, fmt, name)
    _describe(part, inspection)
    image, logits = inspection.contract.inputs[0], inspection.contract.outputs[0]
    candidate = Candidate(
        open_engine(made.model, fmt),
        Input(layout="NHWC" if fmt == "tflite" else "NCHW", **_tensor(image)),
        Output(kind="logits", **_tensor(logits)),
    )
    return File(made.model, candidate)


def _tensor(port: Port) -> dict[str, Any]:
    quantized = port.dtype in ("int8", "uint8")
    return {
        "name": port.name,
        "shape": port.shape,
        "dtype": port.dtype,
        "scale": port.scale if quantized else None,
        "zero_point": port.zero_point if quantized else None,
    }


def _time(fmt: str, files: dict[str, File], image: Floats, result: Result, ask: Ask) -> None:
    """Time all files of one format in the same rounds, on one image (C, H, W)."""
    pixel_rows = image.transpose(1, 2, 0)
    ready = {
        name: zoo_times.Ready(file.model, encode_input(pixel_rows, file.candidate.input))
        for name, file in files.items()
        if _format(name) == fmt
    }
    if not ready:
        return
    with turns.alone(Path(ask.turns)), watch_others() as others:
        taken = zoo_times.times(
            fmt, ready, Path(ask.scratch), min_rounds=ask.min_rounds, max_seconds=ask.max_seconds, seed=ask.seed
        )
    result.timing_others_busy = {**result.timing_others_busy, fmt: others.busy}
    for name, samples in taken.items():
        result.parts[name].samples_ms = samples


def _format(name: str) -> str:
    target = peers.PEERS[name].reads if name in peers.PEERS else name
    return target.partition("-")[0]


def _keep(ask: Ask, result: Result) -> None:
    write_whole(Path(ask.out), encode(result))


if __name__ == "__main__":
    measure(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Ask))
