"""The training loop itself: the same curve in two processes as in one, and what it costs beside a bare loop.

As a program it trains a small network on made images and prints the loss of every step:
accelerate launch --multi_gpu --num_processes 2 -m benchmarks.looping
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from benchmarks import child
from benchmarks.facts import ROOT
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from shrink.data.held import Held
from shrink.tune.feed import Feed
from shrink.tune.loop import Training
from shrink.tune.losses import objective
from shrink.tune.settings import Settings
from shrink.tune.teacher import Teacher
from shrink.tune.views import Data

STEPS = 32  # per round; the first is not timed: it starts the loader
ROUNDS = 9
TOLERANCE = 1e-5  # of the largest loss, between the curves of one process and of two
LIMIT_SECONDS = 300.0


def made(count: int) -> Data:
    """Grey 16 x 16 images of two classes: brighter left, brighter right."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pixels = rng.integers(0, 160, (count, 1, 16, 16), dtype=np.uint8)
    pixels[labels == 0, :, :, :8] += 60
    pixels[labels == 1, :, :, 8:] += 60
    return Data(Held(pixels, labels), labels, 2, (0.5,), (0.5,))


def network(width: int, seed: int) -> nn.Module:
    """A small convolutional network, (N, 1, 16, 16) -> (N, 2)."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, stride=2), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))


def curve() -> list[float]:
    """The losses of a training in all processes of this launch."""
    teacher = Teacher(network(32, 1).requires_grad_(False))
    how = Settings(epochs=4, batch=64, labels=0.5, rate=1e-2, views=2)
    training = Training(network(16, 2), teacher, made(256), made(64), how, Accelerator(cpu=True))
    found = training.run()
    return [training.accelerator.num_processes, *found.losses]


def processes(_: Path, scratch: Path) -> Measured:
    """The curves of one process and of two with the same batch."""
    curves: dict[str, list[float]] = {}
    for number in (1, 2):
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1"]
        launch += ["--multi_gpu"] if number > 1 else ["--cpu"]  # several processes, also where there is no GPU
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes", str(number)]
        launch += ["-m", "benchmarks.looping"]
        folder = scratch / str(number)
        folder.mkdir()
        ended = child.run(launch, cwd=ROOT, scratch=folder, limit_seconds=LIMIT_SECONDS, env={"OMP_NUM_THREADS": "1"})
        if (failure := child.failure(ended, "accelerate launch")) is not None:
            return Measured(failure=failure)
        lines = [line for line in ended.out.splitlines() if line.startswith("[")]
        took_part, *curves[str(number)] = json.loads(lines[-1])
        assert took_part == number, "accelerate launched as many"
    one, two = (np.array(curves[name]) for name in ("1", "2"))
    worst = float(np.abs(one - two).max() / np.abs(one).max())
    result = {"losses": curves, "largest_difference_of_largest_loss": worst}
    if worst <= TOLERANCE:
        return Measured(result)
    why = f"they differ by {worst:.1g} of the largest loss, {TOLERANCE:g} allowed"
    return Measured(
        result, Failure(what="two processes learn otherwise than one", why=why, fix="look at the gradients")
    )


def throughput(_: Path, scratch: Path) -> Measured:
    """Processor seconds of the loop and of a bare one, taken in turns."""
    torch.set_num_threads(1)
    times: dict[str, list[float]] = {"loop": [], "bare": []}
    for number in range(ROUNDS + 1):
        for name, run in (("loop", _loop), ("bare", _bare)):
            seconds = run()
            if number:  # the first round warms up
                times[name].append(seconds)
    ratio = float(np.median(np.array(times["bare"]) / np.array(times["loop"])))
    return Measured({"cpu_seconds_of_steps": times, "steps": STEPS, "batch": BATCH, "throughput_of_bare": ratio})


BATCH = 64
WIDE = 64


def _parts() -> tuple[nn.Module, Teacher, Data, Settings]:
    how = Settings(epochs=1, batch=BATCH, labels=0.5, augment=("crop", "flip"), views=1)
    return network(WIDE, 2), Teacher(network(WIDE, 1).requires_grad_(False)), made(BATCH * STEPS), how


def _loop() -> float:
    """Seconds of processor time of a step, without what comes before the second and after the last begins."""
    student, teacher, data, how = _parts()
    marks: list[float] = []

    def track(steps: Any) -> Iterator[Any]:
        for step in steps:
            marks.append(time.process_time())
            yield step

    Training(student, teacher, data, made(8), how, Accelerator(cpu=True)).run(track=track)
    return (marks[-1] - marks[1]) / (len(marks) - 2)


def _bare() -> float:
    """The same step by hand."""
    student, teacher, data, how = _parts()
    optimizer = torch.optim.Adam(student.parameters(), lr=how.rate)
    marks: list[float] = []
    for part in islice(Feed(data, how).parts(0), STEPS):
        marks.append(time.process_time())
        with torch.no_grad():
            wanted = teacher.network(part.images)
        loss = objective(student(part.images), wanted, part.shares, how, None)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    return (marks[-1] - marks[1]) / (len(marks) - 2)


if __name__ == "__main__":
    found = curve()
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(found))
