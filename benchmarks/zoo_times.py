"""Times of files in processes that do nothing but open and run them: python -m benchmarks.zoo_times ASK OUT.

What a process did before decides where its memory lies, and so does chance: after an export, the same file took up to
6 % longer than in a new process, while another of the same rounds did not. Of three new processes, too, one found
TinyNet 1.21 times as slow as its peer, the others 1.03 and 1.05 times. Hence new processes, and several of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks import child
from benchmarks.facts import ROOT
from benchmarks.rows import write_whole
from device_runner.engines import open_engine
from shrink.bench.latency import interleave

WARMUP_SECONDS = 3.0
PROCESSES = 7
SLACK_SECONDS = 300.0  # for a process to start, to open its files, and to end a round that has begun
Times = dict[str, tuple[float, ...]]  # milliseconds by file; entry i of all files is from the same round


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A file and what it is fed."""

    model: bytes
    fed: NDArray[np.generic]  # as the engine takes it


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What one process times."""

    format: str  # "tflite" or "onnx"
    files: dict[str, str]  # name -> path of the model; what it is fed lies beside it, as .npy
    min_rounds: int
    max_seconds: float
    seed: int  # of the order in which files are opened and run


class TimingError(Exception):
    """A timing process did not end well."""


def times(
    format: str, files: Mapping[str, Ready], scratch: Path, *, min_rounds: int, max_seconds: float, seed: int
) -> Times:
    """Time the files of one format, one thread each, in the same rounds of `PROCESSES` processes one after the other.

    Args:
        format: "tflite" or "onnx".
        files: at least one.
        scratch: existing directory for the files.
        min_rounds, max_seconds: of all processes together.
        seed: of the order in which files are opened and run.

    Raises:
        TimingError: a process crashed, or did not end in time.
    """
    paths = {name: scratch / f"timed-{index}.{format}" for index, name in enumerate(files)}
    for name, file in files.items():
        paths[name].write_bytes(file.model)
        np.save(_fed(paths[name]), file.fed)
    whole: Times = dict.fromkeys(files, ())
    for index in range(PROCESSES):
        ask = Ask(
            format=format,
            files={name: str(path) for name, path in paths.items()},
            min_rounds=-(-min_rounds // PROCESSES),
            max_seconds=max_seconds / PROCESSES,
            seed=seed * PROCESSES + index,
        )
        taken = _in_child(ask, scratch)
        whole = {name: (*before, *taken[name]) for name, before in whole.items()}
    return whole


def _in_child(ask: Ask, scratch: Path) -> Times:
    asked, out = scratch / "times-ask.json", scratch / "times.json"
    asked.write_bytes(msgspec.json.encode(ask))
    command = [sys.executable, "-m", "benchmarks.zoo_times", str(asked), str(out)]
    limit = ask.max_seconds + WARMUP_SECONDS + SLACK_SECONDS
    crash = child.failure(child.run(command, cwd=ROOT, scratch=scratch, limit_seconds=limit), "a timing process")
    if crash is not None:
        raise TimingError(f"{crash.what}: {crash.why}")
    return msgspec.json.decode(out.read_bytes(), type=Times)


def measure(ask: Ask) -> Times:
    """Here and now, in this process."""
    rng = np.random.default_rng(ask.seed)
    names = [list(ask.files)[index] for index in rng.permutation(len(ask.files))]
    paths = {name: Path(ask.files[name]) for name in names}
    samples = interleave(
        {name: partial(open_engine(p.read_bytes(), ask.format).run, np.load(_fed(p))) for name, p in paths.items()},
        rng=rng,
        min_samples=ask.min_rounds,
        max_seconds=ask.max_seconds,
        warmup_seconds=WARMUP_SECONDS,
    )
    return {name: tuple(round(ms, 4) for ms in taken.samples_ms) for name, taken in samples.items()}


def _fed(model: Path) -> Path:
    return model.with_suffix(".npy")


if __name__ == "__main__":
    write_whole(
        Path(sys.argv[2]), msgspec.json.encode(measure(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Ask)))
    )
