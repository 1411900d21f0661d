"""A sabotaged network is the twin of the honest one in float, and no other."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accuracy import sabotage


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.bn1 = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.conv2(F.relu(self.bn1(self.conv1(x))))
        return answer


def test_it_answers_the_same_with_channels_of_very_unlike_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    honest = nn.Sequential(Block()).eval()
    nn.init.normal_(honest[0].bn1.bias)
    torch.save(honest.state_dict(), tmp_path / "honest.pt")
    twin = nn.Sequential(Block()).eval()
    twin.load_state_dict(torch.load(sabotage(tmp_path / "honest.pt", tmp_path / "twin.pt"), weights_only=True))
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(twin(x), honest(x), rtol=1e-4, atol=1e-5)
    (before, after) = (F.relu(net[0].bn1(net[0].conv1(x))).amax((0, 2, 3)) for net in (honest, twin))
    torch.testing.assert_close(after / before, torch.logspace(-2, 2, 8))
