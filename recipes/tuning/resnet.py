"""Residual networks for 32 x 32 images (He et al. 2016, section 4.2): ResNet-20 and ResNet-56.

Input: (B, 3, 32, 32), normalized; output: (B, 10) logits. Shortcuts without weights: where the map is halved every
second pixel is taken, and the channels that are new are zero.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut. (B, in, H, W) -> (B, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.stride, self.new = (1 if in_channels == out_channels else 2), out_channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.new:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """`depth` is 6 n + 2, with n blocks at each of three sizes."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        before = WIDTHS[0]
        for number, width in enumerate(WIDTHS, start=1):
            blocks = [BasicBlock(before, width), *(BasicBlock(width, width) for _ in range((depth - 2) // 6 - 1))]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            before = width
        self.linear = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def resnet20() -> nn.Module:
    """0.27 million parameters."""
    return ResNet(20)


def resnet56() -> nn.Module:
    """0.85 million parameters."""
    return ResNet(56)
