"""Tiny modules of every kind that a graph must carry, each a few thousand parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from shrink.graph.clean import fold_constants, tidy
from shrink.graph.shapes import annotate_shapes

SHAPE = (1, 3, 16, 16)


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """Norms with statistics and weights that matter, as after training; all from one seed."""
    rng = torch.Generator().manual_seed(seed)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=rng) * 0.5)
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=rng) + 0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = parameter.shape[1:].numel() ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * spread + (parameter.dim() < 2))
    return module.eval()


class Fn(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Any], *parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Residual(nn.Module):
    """Inverted bottleneck: depthwise, in-place ReLU6, residual add."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True),
            nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SqueezeExcite(nn.Module):
    def __init__(self, gate: Callable[[Tensor], Tensor] = torch.sigmoid) -> None:
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.down(F.adaptive_avg_pool2d(x, 1)), inplace=True)
        return x * self.gate(self.up(scale))


class PreActivation(nn.Module):
    """Batch norms that follow no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv, self.pool_norm = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool_norm(F.max_pool2d(x + self.conv(F.relu(self.norm(x))), 2))


class Shuffle(nn.Module):
    """Chunk, concat and channel shuffle, as ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.conv(right)], 1)
        return x.view(1, 2, 4, 16, 16).transpose(1, 2).contiguous().view(1, 8, 16, 16)


class Windows(nn.Module):
    """Shifted windows with a mask made in the forward pass, as Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        _, _, height, width = x.shape
        y = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
        rows = torch.arange(height).div(4, rounding_mode="floor")
        mask = torch.zeros(height, width).masked_fill(rows[:, None] != rows[None], -1.0)
        y = self.mix(y + mask[None, :, :, None])
        return torch.roll(y, (2, 2), (1, 2)).permute(0, 3, 1, 2)


class Encoder(nn.Module):
    """nn.MultiheadAttention between layer norms, with a class token and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(8, 16, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.zeros(1, 17, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.5), nn.Linear(32, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.mlp(self.norm2(x)))[:, 0])


class LinearNorm(nn.Module):
    """Linear and batch norm over (batch, token) pairs, as LeViT."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 12, bias=False), nn.BatchNorm1d(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(2).transpose(1, 2))
        return F.hardswish(self.norm(x.flatten(0, 1)).reshape_as(x))


class TokenNorm(nn.Module):
    """A batch norm over tokens behind a linear with as many outputs: the axes differ, the sizes do not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(256, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.flatten(2)))


def _net(*middle: nn.Module, head: bool = True) -> nn.Module:
    stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)] if head else []
    return nn.Sequential(*stem, *middle, *tail)


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: _net(nn.Conv2d(8, 8, 3, stride=2, padding="valid"), nn.BatchNorm2d(8)),
    "residual": lambda: _net(Residual()),
    "squeeze_excite": lambda: _net(SqueezeExcite(), nn.Hardswish(inplace=True), SqueezeExcite(F.hardsigmoid)),
    "pre_activation": lambda: _net(PreActivation()),
    "silu": lambda: _net(nn.SiLU(inplace=True), nn.Conv2d(8, 8, 1), nn.SiLU()),
    "shuffle": lambda: _net(Shuffle()),
    "windows": lambda: _net(Windows()),
    "resize": lambda: _net(nn.Upsample(scale_factor=2), nn.Upsample((24, 20), mode="bilinear"), nn.ZeroPad2d(1)),
    "transposed": lambda: _net(nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.Dropout2d(0.5)),
    "vector_norm": lambda: _net(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 5), head=False
    ),
    "linear_norm": lambda: _net(LinearNorm(), nn.Flatten(), nn.Linear(3072, 4), head=False),
    "token_norm": lambda: _net(TokenNorm(), nn.Flatten(), nn.Linear(64, 4), head=False),
    "encoder": lambda: _net(Encoder(), head=False),
    "norms": lambda: _net(nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True), nn.PReLU()),
    "plain_norm": lambda: _net(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False)),
}


def _timm(name: str) -> nn.Module:
    from shrink.models.torchvision_compat import import_torchvision

    import_torchvision()
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    if name == "vit":
        return VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=5)
    return SwinTransformer(
        img_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(2,), num_heads=(2,), num_classes=5
    )


LIBRARY_NETS: dict[str, Callable[[], nn.Module]] = {"vit": lambda: _timm("vit"), "swin": lambda: _timm("swin")}


def images(count: int = 3, shape: tuple[int, ...] = SHAPE, seed: int = 7) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng) for _ in range(count)]


def answer(module: Callable[[Tensor], Any], image: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(image)
    return result


def traced(function: Callable[[Tensor], Any], shape: tuple[int, ...] = SHAPE) -> fx.GraphModule:
    """The ATen graph of a function, with shapes: what a rewrite takes, ten times as fast as a whole capture."""
    with torch.no_grad():
        graph_module = make_fx(function, pre_dispatch=True)(torch.zeros(shape))
    annotate_shapes(graph_module, torch.zeros(shape))
    return graph_module


def ops(graph_module: fx.GraphModule) -> list[str]:
    """The ATen overloads of a graph in order, without their namespace."""
    return [str(n.target).removeprefix("aten.") for n in graph_module.graph.nodes if n.op == "call_function"]


def rewritten(
    rewrite: Callable[[fx.GraphModule], int], function: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> int:
    """How often a rewrite fired on the graph of a function, the answers being the same."""
    graph_module = traced(function, shape)
    fold_constants(graph_module)
    annotate_shapes(graph_module, torch.zeros(shape))
    count = rewrite(graph_module)
    tidy(graph_module)
    for image in images(2, shape, seed=0):
        torch.testing.assert_close(answer(graph_module, image), answer(function, image), rtol=1e-5, atol=1e-6)
    return count
