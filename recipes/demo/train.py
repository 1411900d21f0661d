"""Train one of the demo networks on Fashion-MNIST.

Example: python recipes/demo/train.py cnn --epochs 12 --out recipes/demo/cnn.safetensors
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import fashion
import models
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

BATCH = 128  # images
TEMPERATURE = 2.0  # softens teacher and student logits before they are compared
TEACHER_SHARE = 0.7  # of the loss; the rest is cross-entropy with the labels


class Network(StrEnum):
    """Which network to train."""

    CNN = "cnn"
    VIT = "vit"


@dataclass(frozen=True, slots=True)
class Settings:
    """How one network is trained."""

    factory: Callable[[], nn.Module]
    learning_rate: float  # the peak, after warm-up
    weight_decay: float  # on weights of rank 2 and more; biases and norms have none
    erase: float  # probability that an image loses a rectangle, 0..1
    label_smoothing: float = 0.05
    shift: int = 2  # pixels, at most, in each direction
    warmup: float = 0.1  # fraction of all steps
    average: float = 0.995  # decay per step of the weight average that is saved


SETTINGS = {
    Network.CNN: Settings(models.cnn, learning_rate=4e-3, weight_decay=0.05, erase=0.25),
    Network.VIT: Settings(models.vit, learning_rate=1.5e-3, weight_decay=0.05, erase=0.25),
}


@dataclass(frozen=True, slots=True)
class Data:
    """One split in memory: images (N, 28, 28) uint8, labels (N,) int64."""

    images: Tensor
    labels: Tensor


def load_split(directory: Path, split: fashion.Split, limit: int | None) -> Data:
    """Read a split, only its first `limit` images when given."""
    images, labels = fashion.load(directory, split)
    return Data(torch.tensor(images[:limit]), torch.tensor(labels[:limit]).long())


def normalize(images: Tensor) -> Tensor:
    """(B, 28, 28) uint8 -> (B, 1, 28, 28) float32 with mean 0 and deviation 1 over the training split."""
    return ((images.float() / 255 - fashion.MEAN) / fashion.STD).unsqueeze(1)


def augment(images: Tensor, settings: Settings, rng: torch.Generator) -> Tensor:
    """Shift, mirror and erase at random, each image on its own. (B, 28, 28) uint8 -> the same."""
    return erase(shift_and_flip(images, settings.shift, rng), settings.erase, rng)


def shift_and_flip(images: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Move by up to `most` pixels, zeros come in from outside; mirror left-right half of the images."""
    batch, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    down, right = torch.randint(0, 2 * most + 1, (2, batch, 1), generator=rng)
    rows = torch.arange(height) + down  # (B, H)
    columns = torch.arange(width) + right  # (B, W)
    mirrored = torch.rand(batch, 1, generator=rng) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return padded[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


def erase(images: Tensor, probability: float, rng: torch.Generator) -> Tensor:
    """Blank a rectangle of 4 to 11 pixels a side, with the given probability."""
    batch, height, width = images.shape
    size = torch.randint(4, 12, (2, batch, 1), generator=rng)
    centre = torch.randint(0, height, (2, batch, 1), generator=rng)
    rows = (torch.arange(height) - centre[0]).abs() * 2 < size[0]  # (B, H)
    columns = (torch.arange(width) - centre[1]).abs() * 2 < size[1]  # (B, W)
    chosen = torch.rand(batch, 1, 1, generator=rng) < probability
    return images.masked_fill(rows[:, :, None] & columns[:, None, :] & chosen, 0)


def batches(data: Data, settings: Settings, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented (B, 1, 28, 28) float32 images and (B,) labels, in random order."""
    for chosen in torch.randperm(len(data.labels), generator=rng).split(BATCH):
        images = normalize(augment(data.images[chosen], settings, rng))
        yield images.contiguous(memory_format=torch.channels_last), data.labels[chosen]


def keep_float32(model: nn.Module) -> None:
    """Take strided depthwise convolutions out of autocast: their bfloat16 backward is 20x slower than float32."""
    for conv in model.modules():
        if isinstance(conv, nn.Conv2d) and conv.groups > 1 and conv.stride != (1, 1):
            conv.forward = _without_autocast(conv.forward)


def _without_autocast(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float())

    return call


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW that decays matrices and filters only."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: Settings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rate of each step: linear warm-up to the peak, then a cosine to zero."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps + 1, pct_start=settings.warmup, cycle_momentum=False
    )


def loss_of(logits: Tensor, labels: Tensor, soft: Tensor | None, smoothing: float) -> Tensor:
    """Cross-entropy with the labels, mixed with the divergence from the teacher's logits `soft` (B, 10) if any."""
    hard_loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if soft is None:
        return hard_loss
    student = F.log_softmax(logits / TEMPERATURE, dim=1)
    teacher = F.log_softmax(soft / TEMPERATURE, dim=1)
    soft_loss = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * TEMPERATURE**2
    return TEACHER_SHARE * soft_loss + (1 - TEACHER_SHARE) * hard_loss


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move every float of `average` towards `model`; counters are copied."""
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


class Trainer:
    """A network, its weight average, and what an epoch needs to move both."""

    def __init__(self, settings: Settings, data: Data, *, epochs: int, teacher: nn.Module | None, seed: int) -> None:
        torch.manual_seed(seed)  # the factories take no generator
        self.rng = torch.Generator().manual_seed(seed)
        self.settings, self.data, self.teacher = settings, data, teacher
        self.model = settings.factory().to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        self.optimizer = make_optimizer(self.model, settings)
        self.schedule = make_schedule(self.optimizer, settings, epochs * -(-len(data.labels) // BATCH))
        self.step = 0
        keep_float32(self.model)

    def epoch(self) -> float:
        """Pass over the data once; the mean loss."""
        losses = [self._step(images, labels) for images, labels in batches(self.data, self.settings, self.rng)]
        return sum(losses) / len(losses)

    def _step(self, images: Tensor, labels: Tensor) -> float:
        # on a CPU, with 49 tokens in bfloat16, a step with the fused attention kernel takes 1.8x as long
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            soft = None if self.teacher is None else self._ask_teacher(images)
            logits = self.model(images)
        loss = loss_of(logits.float(), labels, soft, self.settings.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        # a young average would otherwise remember the random weights
        update_average(self.average, self.model, min(self.settings.average, self.step / (self.step + 10)))
        return loss.item()

    @torch.no_grad()
    def _ask_teacher(self, images: Tensor) -> Tensor:
        assert self.teacher is not None
        return self.teacher(images).float()


@torch.inference_mode()
def top1_percent(model: nn.Module, data: Data) -> float:
    """Share of images whose largest logit is the label's, in percent; float32, batch norm in inference mode."""
    model.eval()
    guesses = [model(normalize(images)).argmax(1) for images in data.images.split(500)]
    return (torch.cat(guesses) == data.labels).double().mean().item() * 100


def save(model: nn.Module, out: Path) -> None:
    """Write the state dict; `out` is either the old file or the whole new one, never a part."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    part = out.with_name(out.name + ".part")
    save_file(state, part)
    part.replace(out)


def load_teacher(path: Path) -> nn.Module:
    """The demo CNN with the weights in `path`, ready for inference."""
    teacher = models.cnn()
    teacher.load_state_dict(load_file(path))
    return teacher.to(memory_format=torch.channels_last).eval()


def continued(settings: Settings, start: Path) -> Settings:
    """The same settings, but from the weights in `start`; half the rate, so that they are not thrown away."""

    def factory() -> nn.Module:
        model = settings.factory()
        model.load_state_dict(load_file(start))
        return model

    return replace(settings, factory=factory, learning_rate=settings.learning_rate / 2)


def check_paths(data: Path, teacher: Path | None, start: Path | None) -> None:
    """Fail early, with what is wrong, why, and the repair."""
    if not data.is_dir():
        raise fashion.DataError(
            f"error: there is no directory {data}\n"
            "  why: --data must hold the four Fashion-MNIST .gz files\n"
            "  fix: apt install dataset-fashion-mnist, or give --data another directory"
        )
    for option, path in (("--teacher", teacher), ("--start", start)):
        if path is not None and not path.is_file():
            raise fashion.DataError(
                f"error: there is no file {path}\n"
                f"  why: {option} must be a file written by this command\n"
                f"  fix: train it first, with --out {path}"
            )


def fit(trainer: Trainer, *, epochs: int, out: Path) -> None:
    """Train, save after every epoch (so an interrupted run leaves the last one), and report progress."""
    start = time.monotonic()
    for epoch in range(1, epochs + 1):
        loss = trainer.epoch()
        save(trainer.average, out)
        elapsed_s = time.monotonic() - start
        eta_s = elapsed_s / epoch * (epochs - epoch)
        typer.echo(f"epoch {epoch:3}/{epochs}  loss {loss:.4f}  elapsed {elapsed_s:.0f} s  ETA {eta_s:.0f} s")


def main(
    network: Annotated[Network, typer.Argument(help="Which network to train.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.", dir_okay=False)],
    data: Annotated[Path, typer.Option(help="Directory of the four IDX .gz files.")] = fashion.DEBIAN_DIR,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 12,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N images of each split.")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentation.")] = 0,
    teacher: Annotated[Path | None, typer.Option(help="A trained CNN whose logits are learned too.")] = None,
    start: Annotated[Path | None, typer.Option(help="Continue from these weights, at half the rate.")] = None,
) -> None:
    """Train NETWORK on Fashion-MNIST, write its averaged weights to OUT, print its test top-1."""
    try:
        check_paths(data, teacher, start)
        train_data, test_data = (load_split(data, split, limit) for split in ("train", "test"))
    except fashion.DataError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    model = None if teacher is None else load_teacher(teacher)
    settings = SETTINGS[network] if start is None else continued(SETTINGS[network], start)
    trainer = Trainer(settings, train_data, epochs=epochs, teacher=model, seed=seed)
    fit(trainer, epochs=epochs, out=out)
    typer.echo(f"test top-1 {top1_percent(trainer.average, test_data):.2f} % of {len(test_data.labels)} images")


if __name__ == "__main__":
    typer.run(main)
