"""The training loop: one process or many, on CPU or GPU, through `accelerate`; it can be stopped and gone on with.

What is trained is any module that takes (N, C, H, W) and gives (N, classes): the captured graph with its float
weights, or the same graph with the rounding to 8 bits in it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from shrink.errors import DivergenceError
from shrink.graph.training import rate_at
from shrink.tune.checkpoints import Checkpoints, Standing
from shrink.tune.feed import Feed, Part, held_out
from shrink.tune.losses import objective
from shrink.tune.settings import Settings
from shrink.tune.teacher import Answers, Teacher, as_list
from shrink.tune.views import Data

LOOK = 16  # steps between two looks at the loss: each makes a GPU wait
INTERVAL_SECONDS = 60.0  # of work that a kill may lose
STEEPEST = 1.0  # longest gradient that is followed as it is
BLIND = 3.0  # times the loss of a student that sees nothing, above which a training has come apart

Track = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training went.

    Attributes:
        losses: of every step, mean over all processes.
        judged: the loss on held-out images before the first epoch and after each.
        best: which of them is the least; the student has the weights of then.
        stopped: why the training ended early, or None.
    """

    losses: tuple[float, ...]
    judged: tuple[float, ...]
    best: int
    stopped: DivergenceError | None = None


@dataclass(slots=True)
class Training:
    """A student, what it learns from, and what has been learnt.

    Attributes:
        student: trained in place; gives scores, and perhaps then the tokens that are matched with the teacher's.
        teacher: None: only labels count.
        data: what is trained on.
        held_out: other images, which choose the best epoch.
        settings: how.
        accelerator: where.
        checkpoints: None: a stopped training begins anew.
        identity: of model, data and settings.
        interval: seconds between two checkpoints within an epoch, of `clock`.
    """

    student: nn.Module
    teacher: Teacher | None
    data: Data
    held_out: Data
    settings: Settings
    accelerator: Accelerator
    checkpoints: Checkpoints | None = None
    identity: str = ""
    interval: float = INTERVAL_SECONDS
    clock: Callable[[], float] = time.monotonic
    _losses: list[float] = field(default_factory=list)
    _judged: list[float] = field(default_factory=list)
    _waiting: list[Tensor] = field(default_factory=list)  # losses not looked at yet
    _best: dict[str, Tensor] = field(default_factory=dict)

    def run(self, *, resume: bool = False, track: Track = lambda items: items) -> Fitted:
        """Train to the end, or until the loss shows that it leads nowhere; the best weights are left in the student.

        Args:
            resume: go on from the newest checkpoint, if there is one.
            track: shows the steps.

        Raises:
            CheckpointError: checkpoints that are all damaged, or of another training.
            OutputError: a checkpoint cannot be written; those before it are whole.
            DivergenceError: the loss became NaN or huge before any epoch was better than the start.
        """
        weights = [weight for weight in self.student.parameters() if weight.requires_grad]
        network, optimizer = self.accelerator.prepare(self.student, torch.optim.Adam(weights, lr=self.settings.rate))
        done = self._restore(optimizer) if resume else 0
        if not self._judged:
            self._judge()
        stopped = None
        try:
            self._train(network, optimizer, done, track)
        except DivergenceError as error:
            if not self._best_epoch:
                raise
            stopped = error
        self.student.load_state_dict(self._best)
        self.student.eval()
        return Fitted(tuple(self._losses), tuple(self._judged), self._best_epoch, stopped)

    @property
    def _best_epoch(self) -> int:
        return self._judged.index(min(self._judged))

    def _train(self, network: nn.Module, optimizer: Any, done: int, track: Track) -> None:
        here, settings = self.accelerator, self.settings
        workers = 0 if here.device.type == "cpu" else LOADERS
        feed = Feed(self.data, settings, here.num_processes, here.process_index, workers)
        per_epoch, parts, limit = feed.steps_per_epoch, feed.parts(done), self._limit()
        total, saved = per_epoch * settings.epochs, self.clock()
        for step in track(range(done, total)):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * rate_at(step, total, settings.warmup)
            self._waiting.append(self._step(network, optimizer, [next(parts) for _ in range(settings.accumulate)]))
            ends = (step + 1) % per_epoch == 0
            late = self.checkpoints is not None and self.clock() - saved > self.interval
            if ends or late or len(self._waiting) == LOOK:
                self._look(limit)
            if ends:
                self._judge()
            if late or ends:
                self._save(optimizer)
                saved = self.clock()

    def _step(self, network: nn.Module, optimizer: Any, parts: Sequence[Part]) -> Tensor:
        """One change of the weights from all parts of a batch; the mean loss in this process."""
        losses = []
        for number, part in enumerate(parts, start=1):
            with contextlib.nullcontext() if number == len(parts) else self.accelerator.no_sync(network):
                loss = self._loss(network, part)
                self.accelerator.backward(loss / len(parts))
            losses.append(loss.detach())
        self.accelerator.clip_grad_norm_(network.parameters(), STEEPEST)
        optimizer.step()
        optimizer.zero_grad()
        return torch.stack(losses).mean()

    def _loss(self, network: Callable[[Tensor], Answers], part: Part, weights: Tensor | None = None) -> Tensor:
        images, shares = part.images.to(self.accelerator.device), part.shares.to(self.accelerator.device)
        with self.accelerator.autocast():
            scores, *mine = as_list(network(images))
            wanted, *theirs = (None,) if self.teacher is None else self.teacher.answers(part.view, part.place, images)
        tokens = [(a.float(), b) for a, b in zip(mine, theirs, strict=False)]  # none of a student that sees nothing
        return objective(scores.float(), wanted, shares, self.settings, weights, tokens)

    def _held_out(self, network: Callable[[Tensor], Answers]) -> float:
        """The mean loss on the held-out images."""
        weights = self.held_out.class_weights(self.accelerator.device) if self.settings.balance else None
        losses, sizes = [], []
        with torch.no_grad():
            for part in held_out(self.held_out, self.settings.batch):
                losses.append(float(self._loss(network, part, weights)))
                sizes.append(len(part.images))
        return float(np.average(losses, weights=sizes))

    def _judge(self) -> None:
        """Judge the weights, and keep them if none were better."""
        self.student.eval()  # of no effect on a captured graph; other modules may have batch norms
        self._judged.append(self._held_out(self.student))
        self.student.train()
        if self._best_epoch == len(self._judged) - 1:
            self._best = {name: value.detach().clone() for name, value in self.student.state_dict().items()}

    def _limit(self) -> float:
        """A loss above which a training that began well has come apart."""
        return BLIND * self._held_out(lambda images: torch.zeros(len(images), self.data.classes, device=images.device))

    def _look(self, limit: float) -> None:
        """Take note of the last losses.

        Raises:
            DivergenceError: one is not a number, or the mean of the last `LOOK` is above `limit`.
        """
        found = self.accelerator.reduce(torch.stack(self._waiting), "mean").tolist()
        self._waiting.clear()
        first = len(self._losses) + 1
        self._losses += found
        if bad := [number for number, loss in enumerate(found) if not math.isfinite(loss)]:
            raise _diverged(f"the loss is {found[bad[0]]} at step {first + bad[0]}", self.settings)
        mean = float(np.mean(self._losses[-LOOK:]))
        if len(self._losses) >= 2 * LOOK and mean > max(limit, BLIND * self._losses[0]):
            seen = f"the loss is {mean:.3g} about step {len(self._losses)}; it was {self._losses[0]:.3g} at the first"
            raise _diverged(seen, self.settings)

    def _save(self, optimizer: Any) -> None:
        if self.checkpoints is None or not self.accelerator.is_main_process:
            return
        judged = tuple(self._judged)
        standing = Standing(identity=self.identity, step=len(self._losses), losses=tuple(self._losses), judged=judged)
        moments = {
            f"optimizer.{number}.{name}": value
            for number, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        weights = {f"student.{name}": value for name, value in self.student.state_dict().items()}
        best = {f"best.{name}": value for name, value in self._best.items()}
        self.checkpoints.save(standing, {**moments, **weights, **best})

    def _restore(self, optimizer: Any) -> int:
        """Stand where the newest checkpoint stood; how many steps that is."""
        found = None if self.checkpoints is None else self.checkpoints.newest(self.identity)
        if found is None:
            return 0
        standing, tensors = found
        self.student.load_state_dict(_below(tensors, "student."))
        self._best = {name: value.to(self.accelerator.device) for name, value in _below(tensors, "best.").items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer.").items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        self._losses, self._judged = list(standing.losses), list(standing.judged)
        return standing.step


LOADERS = 4  # processes that prepare images for a GPU


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _diverged(seen: str, settings: Settings) -> DivergenceError:
    fix = f"use a lower rate than {settings.rate:g}, such as {settings.rate / 3:.1g}"
    return DivergenceError("the training came apart", seen, fix)
