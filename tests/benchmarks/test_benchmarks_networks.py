"""The zoo's list is true, and its random weights let every branch work."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.architectures import SETS, ZOO
from benchmarks.images import make_image
from benchmarks.randomize import STEADY, randomize, sensitivity, silent
from benchmarks.zoo import row_name
from shrink.models import zoo


def test_every_architecture_exists_in_its_library() -> None:
    known = {library: set(zoo.names(library)) for library in ("torchvision", "timm")}
    assert [a.name for a in ZOO.values() if a.name not in known[a.library]] == []


def test_the_zoo_is_large_and_varied() -> None:
    assert len(SETS["b"]) >= 45
    assert set(SETS["a"]) < set(SETS["b"]) == set(ZOO)
    counts = {kind: sum(a.kind == kind for a in ZOO.values()) for kind in ("CNN", "ViT", "hybrid", "mixer")}
    assert min(counts.values()) >= 3, counts


class Degenerate(nn.Module):
    """Every trap at once: zero gamma, tiny layer scale, a filter without a sum, zero head, zero table."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.layer_scale = nn.Parameter(torch.full((8, 1, 1), 1e-6))
        self.table = nn.Parameter(torch.zeros(16, 16))
        self.head = nn.Linear(8, 10)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) + self.table
        x = x + self.layer_scale * self.norm(self.depthwise(x))
        return self.head(x.relu().mean((2, 3)))


@pytest.fixture
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, 16, 16, generator=generator) for _ in range(4)]


def test_no_branch_stays_silent(images: list[Tensor]) -> None:
    module = Degenerate()
    assert set(silent(module)) == {"norm.weight", "layer_scale", "head.weight"}
    randomize(module, images, seed=0)
    assert silent(module) == []
    assert float(module.norm.weight.detach().min()) >= 0.3
    assert float(module.table.detach().std()) > 0.1
    assert float(module.depthwise.weight.detach().sum((2, 3)).abs().min()) > 0.01


def test_the_answer_depends_on_the_image(images: list[Tensor]) -> None:
    module = Degenerate()
    randomize(module, images, seed=0)
    with torch.no_grad():
        scores = torch.cat([module(image) for image in images])
    assert not module.training
    assert bool(torch.isfinite(scores).all())
    torch.testing.assert_close(scores.mean(0), torch.zeros(10), atol=1e-5, rtol=0)  # centred: no class always wins


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.silu(self.norm(self.conv(x)))


def deep() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 16, 1), *(Block() for _ in range(40)), Mean(), nn.Linear(16, 10))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_a_deep_network_is_made_steady(images: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    steady, chaotic = deep(), deep()
    randomize(steady, images, seed=0)
    monkeypatch.setattr("benchmarks.randomize.SMALLEST_VARIANCES", (0.1,))
    randomize(chaotic, images, seed=0)
    assert sensitivity(steady, images) <= STEADY < sensitivity(chaotic, images)
    with torch.no_grad():
        scores = steady(torch.cat(images))
    assert float(scores.std(0).min()) > 0.01 * float(scores.abs().max())  # and yet the image matters


def test_the_seed_decides(images: list[Tensor]) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(5)
        module = Degenerate()
        randomize(module, images, seed=seed)
        states.append(torch.cat([value.flatten().float() for value in module.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_made_images_look_like_photographs_to_the_checks() -> None:
    import numpy as np

    from shrink.data.checks import UNCORRELATED, neighbour_correlation

    made = [make_image(np.random.default_rng(seed)).transpose(2, 0, 1).astype(np.float32) for seed in range(5)]
    assert all(neighbour_correlation(image) > UNCORRELATED for image in made)
    assert all(float(image.std()) > 10 for image in made)
    assert len({image.tobytes() for image in made}) == 5


def test_a_model_outside_the_list_has_a_row_by_the_name_of_its_library() -> None:
    assert row_name("timm:resnest14d?pretrained=false") == "resnest14d"
    assert row_name("torchvision:alexnet") == "alexnet"
    assert all(row_name(name) == name for name in ZOO)
