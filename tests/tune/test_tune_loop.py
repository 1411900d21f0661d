"""Training learns, goes on after it was stopped as if it had not been, and ends when it leads nowhere."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tune_samples import HOW, Sides, made, student, training

from shrink.errors import CheckpointError, DivergenceError, OutputError
from shrink.tune.checkpoints import TENSORS, Checkpoints
from shrink.tune.teacher import Teacher


def stop_at(step: int) -> Any:
    def track(steps: Iterable[int]) -> Iterator[int]:
        for number in steps:
            if number == step:
                raise KeyboardInterrupt
            yield number

    return track


def right(network: nn.Module) -> int:
    data = made(200)
    images = data.normalized(data.pixels.read(torch.arange(200).numpy()))
    assert data.labels is not None
    return int((network(images).argmax(1).numpy() == data.labels).sum())


def test_a_student_learns_from_its_teacher_without_labels() -> None:
    network = student()
    before = right(network)
    found = training(replace(HOW, epochs=6), network, data=replace(made(96), labels=None)).run()
    assert right(network) >= 180 > before
    assert found.judged[found.best] == min(found.judged) and len(found.losses) == 36


def test_a_teacher_answers_each_view_once() -> None:
    teacher, forgetful = Teacher(Sides()), Teacher(Sides(), most_bytes=0)
    for one in (teacher, forgetful):
        training(replace(HOW, epochs=4, views=2), teacher=one).run()
    assert teacher.asked == 2 * 6 + 2  # two views of six batches, and the held-out images
    assert forgetful.asked == 4 * 6 + 2 * (5 + 1)


def test_parts_of_a_step_are_that_step() -> None:
    whole, parts = training().run(), training(replace(HOW, accumulate=2)).run()
    assert parts.losses == pytest.approx(whole.losses, rel=1e-3)


def checkpoints(folder: Path, notes: list[str] | None = None) -> Checkpoints:
    return Checkpoints(folder, ([] if notes is None else notes).append)


@pytest.mark.parametrize("step", [4, 6, 11])
def test_a_stopped_training_ends_as_if_it_had_not_been_stopped(tmp_path: Path, step: int) -> None:
    network, other = student(), student()
    whole = training(network=network).run()
    kept = checkpoints(tmp_path / "states")
    with pytest.raises(KeyboardInterrupt):
        training(network=other, checkpoints=kept, interval=-1.0).run(track=stop_at(step))
    fresh = student(seed=5)
    again = training(network=fresh, checkpoints=kept).run(resume=True)
    assert (again.losses, again.judged) == (whole.losses, whole.judged)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), fresh.parameters(), strict=True))


KILLED = """
import sys, torch
sys.path[:0] = {paths!r}
from pathlib import Path
from tune_samples import training
from shrink.tune.checkpoints import Checkpoints
def track(steps):
    for step in steps:
        yield step
        print(step, flush=True)
torch.set_num_threads(1)
training(checkpoints=Checkpoints(Path({folder!r}), print), interval=-1.0).run(track=track)
"""


def test_a_kill_loses_one_interval_at_most(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    script = KILLED.format(paths=paths, folder=str(tmp_path / "states"))
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "8":
                process.kill()
                break
    found = checkpoints(tmp_path / "states").newest("")
    assert found is not None and found[0].step >= 9  # step number 8 is the ninth
    assert len(training(checkpoints=checkpoints(tmp_path / "states")).run(resume=True).losses) == 18


def stopped(folder: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        training(checkpoints=checkpoints(folder), interval=-1.0).run(track=stop_at(5))
    return folder


def test_two_states_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "states")
    assert sorted(path.name for path in folder.iterdir()) == ["00000004", "00000005"]
    data = bytearray((folder / "00000005" / TENSORS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "00000005" / TENSORS).write_bytes(data)
    notes: list[str] = []
    found = checkpoints(folder, notes).newest("")
    assert found is not None and found[0].step == 4
    assert "00000005 is damaged" in notes[0] and "the one before it is used" in notes[0]


def test_when_all_are_damaged_nothing_is_guessed(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "states")
    for state in folder.iterdir():
        (state / TENSORS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        training(checkpoints=checkpoints(folder)).run(resume=True)


def test_the_states_of_another_training_are_not_gone_on_with(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "states")
    with pytest.raises(CheckpointError, match="is of another training"):
        training(checkpoints=checkpoints(folder), identity="other").run(resume=True)
    with pytest.raises(OutputError, match="holds an earlier training"):
        checkpoints(folder).check_new()


def test_a_full_disk_leaves_the_old_states(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "states")
    before = {path.name: (path / TENSORS).read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))  # a file that cannot grow: EFBIG instead of ENOSPC
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            training(checkpoints=checkpoints(folder), interval=-1.0).run(resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: (path / TENSORS).read_bytes() for path in folder.iterdir()} == before


class Breaking(nn.Module):
    """Learns for some steps, then gives NaN, or other nonsense."""

    def __init__(self, good: int, bias: float = float("nan")) -> None:
        super().__init__()
        self.inner, self.left, self.bias = student(), good, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= self.training
        scores: torch.Tensor = self.inner(x)
        return scores if self.left >= 0 else scores + self.bias * torch.tensor([1.0, -1.0])


def test_nan_stops_and_the_best_is_kept() -> None:
    network = Breaking(good=9)
    found = training(network=network).run()
    assert found.stopped is not None and found.stopped.why == "the loss is nan at step 10"
    assert found.best == 1
    assert all(bool(torch.isfinite(weight).all()) for weight in network.parameters())


def test_nan_before_anything_was_learnt_is_an_error() -> None:
    with pytest.raises(DivergenceError, match="the training came apart"):
        training(network=Breaking(good=2)).run()


def test_a_loss_that_stays_huge_stops_the_training() -> None:
    with pytest.raises(DivergenceError) as caught:
        training(replace(HOW, labels=1.0, epochs=9), Breaking(good=2, bias=1e4)).run()
    assert "about step 36" in str(caught.value.why), "two looks of 16 steps, at the end of an epoch"
    assert "use a lower rate than 0.01" in str(caught.value.fix)


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    """With the same batch; sums are in another order, so the curves agree to rounding."""
    from benchmarks.looping import processes

    found = processes(Path(), tmp_path).result
    assert found["largest_difference_of_largest_loss"] < 1e-4
