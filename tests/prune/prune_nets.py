"""Small networks, one per way in which channels depend on each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shrink.graph.capture import capture

SHAPE = (1, 3, 16, 16)


class Function(nn.Module):
    """A function of some layers and one tensor."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def net(*middle: nn.Module, width: int = 8) -> nn.Module:
    """Convolution to 8 channels, what is tested, pooling and a classifier of 5."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *middle,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5),
    )  # fmt: skip


def residual(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    return x + b(F.relu(a(x)))


def padded_shortcut(x: Tensor, a: nn.Module) -> Tensor:
    """A shortcut that pads channels with zeros, as the CIFAR-10 ResNets do."""
    return F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + a(x))


def dense(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    x = torch.cat([x, F.relu(a(x))], 1)
    return torch.cat([b(x), x], 1)


def cross_stage(x: Tensor, a: nn.Module) -> Tensor:
    left, right = x.chunk(2, 1)
    return torch.cat([F.silu(a(left)), right[:, :3], left], 1)


def squeeze_excite(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    return x * torch.sigmoid(b(F.relu(a(x.mean((2, 3), keepdim=True)))))


def shuffle(x: Tensor, a: nn.Module) -> Tensor:
    x = torch.cat([x[:, :4], a(x[:, 4:])], 1)
    return x.view(1, 2, 4, 16, 16).transpose(1, 2).reshape(1, 8, 16, 16)


def attention(x: Tensor, qkv: nn.Module, out: nn.Module) -> Tensor:
    """Two heads of width 4 over the pixels, query, key and value from one linear."""
    tokens = x.flatten(2).transpose(1, 2)[:, ::4]
    query, key, value = qkv(tokens).reshape(1, 64, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(1, 64, 8)
    return out(mixed).transpose(1, 2).reshape(1, 8, 8, 8)


def by_hand(x: Tensor, qkv: nn.Module, out: nn.Module) -> Tensor:
    """The same with matrix products, and the parts of each head beside each other."""
    tokens = x.flatten(2).transpose(1, 2)[:, ::4]
    query, key, value = qkv(tokens).view(1, 64, 2, 12).transpose(1, 2).split(4, -1)
    weights = (query @ key.transpose(-2, -1) * 0.5).softmax(-1)
    return out((weights @ value).transpose(1, 2).reshape(1, 64, 8)).transpose(1, 2).reshape(1, 8, 8, 8)


def mlp(x: Tensor, norm: nn.Module, a: nn.Module, b: nn.Module) -> Tensor:
    y = x.permute(0, 2, 3, 1)
    return (y + b(F.gelu(a(norm(y))))).permute(0, 3, 1, 2)


def windows(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    y = torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2))
    y = y.reshape(1, 4, 4, 4, 4, 8).transpose(2, 3).reshape(16, 16, 8)
    y = b(F.gelu(a(y))).reshape(1, 4, 4, 4, 4, 8).transpose(2, 3).reshape(1, 16, 16, 8)
    return torch.roll(y, (2, 2), (1, 2)).permute(0, 3, 1, 2)


def flattened(x: Tensor, a: nn.Module) -> Tensor:
    """Channels times places into a linear, as VGG."""
    return F.relu(a(F.avg_pool2d(x, 4).flatten(1)))[:, :, None, None]


def unknown_op(x: Tensor, a: nn.Module) -> Tensor:
    return a(torch.flip(x, (1,)))


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: net(nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 1)),
    "residual": lambda: net(Function(residual, nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 1))),
    "padded_shortcut": lambda: net(Function(padded_shortcut, nn.Conv2d(8, 16, 3, 2, 1)), width=16),
    "dense": lambda: net(Function(dense, nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(14, 4, 1)), width=18),
    "cross_stage": lambda: net(Function(cross_stage, nn.Conv2d(4, 6, 1)), width=13),
    "depthwise": lambda: net(
        nn.Conv2d(8, 16, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, groups=16), nn.Hardswish(), nn.Conv2d(16, 8, 1)
    ),
    "multiplier": lambda: net(nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 8, 1)),
    "grouped": lambda: net(nn.Conv2d(8, 16, 1), nn.Conv2d(16, 24, 3, groups=4), nn.ReLU(), nn.Conv2d(24, 8, 1)),
    "squeeze_excite": lambda: net(Function(squeeze_excite, nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1))),
    "shuffle": lambda: net(Function(shuffle, nn.Conv2d(4, 4, 3, padding=1, groups=4))),
    "attention": lambda: net(Function(attention, nn.Linear(8, 24), nn.Linear(8, 8))),
    "by_hand": lambda: net(Function(by_hand, nn.Linear(8, 24), nn.Linear(8, 8))),
    "mlp": lambda: net(Function(mlp, nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8))),
    "windows": lambda: net(Function(windows, nn.Linear(8, 16), nn.Linear(16, 8))),
    "flattened": lambda: net(Function(flattened, nn.Linear(128, 8))),
    "group_norm": lambda: net(nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 1)),
    "affine": lambda: net(nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)),
    "resized": lambda: net(nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 1), nn.PReLU(), nn.Conv2d(8, 8, 1)),
    "unknown_op": lambda: net(Function(unknown_op, nn.Conv2d(8, 8, 1))),
}


@cache
def graph(name: str) -> fx.GraphModule:
    """The captured net with lively weights. Shared: not to be changed."""
    torch.manual_seed(0)
    module = NETS[name]()
    with torch.no_grad():
        for key, buffer in module.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_()
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * parameter.shape[1:].numel() ** -0.5 + (parameter.dim() < 2))
    return capture(module.requires_grad_(False), SHAPE)


def images(count: int = 2) -> list[Tensor]:
    rng = torch.Generator().manual_seed(7)
    return [torch.randn(SHAPE, generator=rng) for _ in range(count)]
