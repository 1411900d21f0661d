"""The two demo networks: a MobileNetV3-like CNN and a small ViT for 28x28 grey images.

Both factories take nothing, and return a float32 network with random weights. Input: (B, 1, 28, 28), normalized
with the mean and deviation in `fashion.py`; output: (B, 10) logits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10
IMAGE = 28  # pixels a side


def conv_bn(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, then BatchNorm: (B, in, H, W) -> (B, out, H / stride, W / stride)."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate in 0..1 computed from the channel means. (B, C, H, W) -> the same."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.act = nn.ReLU()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.squeeze(self.pool(x)))))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, squeeze-excite, project 1x1. (B, in, H, W) -> (B, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.expand = conv_bn(in_channels, hidden, 1)
        self.depthwise = conv_bn(hidden, hidden, 3, stride=stride, groups=hidden)
        self.excite = SqueezeExcite(hidden, hidden // 4)
        self.project = conv_bn(hidden, out_channels, 1)
        self.act = nn.Hardswish()
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.expand(x))
        y = self.excite(self.act(self.depthwise(y)))
        y = self.project(y)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """Stem and one block at 14x14, four blocks at 7x7, global average pool, two-layer classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 32, 5, stride=2), nn.Hardswish())
        self.blocks = nn.Sequential(
            InvertedResidual(32, 64, 48),
            InvertedResidual(48, 128, 128, stride=2),
            InvertedResidual(128, 256, 128),
            InvertedResidual(128, 256, 128),
            InvertedResidual(128, 256, 128),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Linear(128, 512), nn.Hardswish())
        self.classifier = nn.Linear(512, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(self.blocks(self.stem(x))).flatten(1)  # (B, 128)
        return self.classifier(self.head(pooled))


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for query, key and value. (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron, each with a residual. (B, T, D) -> same."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """7x7 patches of 4x4 pixels as 49 tokens, pre-norm blocks, mean of the tokens, linear classifier."""

    def __init__(self, *, dim: int = 96, depth: int = 4, heads: int = 3, patch: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, dim, patch, stride=patch)
        self.position = nn.Parameter(torch.randn(1, (IMAGE // patch) ** 2, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, heads, 4 * dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.position  # (B, 49, D)
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


def cnn() -> nn.Module:
    """MobileNetV3-like network. (B, 1, 28, 28) -> (B, 10) logits."""
    return MobileNet()


def vit() -> nn.Module:
    """Small vision transformer. (B, 1, 28, 28) -> (B, 10) logits."""
    return VisionTransformer()
