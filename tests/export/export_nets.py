"""Tiny networks whose files the export tests make, and how a file is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional as F

from device_runner.engines import open_engine
from shrink import quantize, targets
from shrink.export import onnx as onnx_printer
from shrink.export import tflite as tflite_printer
from shrink.export.int16 import known
from shrink.graph.capture import capture
from shrink.graph.edit import constant, is_constant
from shrink.graph.entrance import with_entrance
from shrink.graph.lower import lower
from shrink.inspect.truth import inspect_bytes
from shrink.quantize.plan import make_plan
from shrink.quantize.ranges import observe
from shrink.quantize.scheme import plan_scheme
from shrink.targets import Target

SHAPE = (1, 3, 16, 16)
CLASSES = 5


def lively(module: nn.Module) -> nn.Module:
    """Batch norms with statistics, as after training."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return module.eval().requires_grad_(False)


class Cnn(nn.Module):
    """Depthwise, residual, squeeze and excite with hard activations, global pool, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.Hardswish())
        self.body = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(), nn.Conv2d(12, 12, 1)
        )
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.body(x)
        x = x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Vit(nn.Module):
    """Patches, class token, one block of nn.MultiheadAttention and GELU, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token, x], 1) + self.position
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(self.norm3(x + self.mlp(self.norm2(x)))[:, 0])


class Classic(nn.Module):
    """Pool before ReLU, flattened codes, three linears: LeNet. Two channels are shut, but for their bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.one, self.two, self.three = nn.Linear(32, 12), nn.Linear(12, 12), nn.Linear(12, CLASSES)
        with torch.no_grad():
            self.second.weight[2], self.second.bias[2] = 0.0, 40.0
            self.second.weight[5], self.second.bias[5] = 1e-12, -40.0

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.first(x), 2))
        x = F.max_pool2d(F.relu(self.second(x)), 2)
        return self.three(F.relu(self.two(F.relu(self.one(x.flatten(1))))))


class Wide(nn.Module):
    """A linear with as many small scales as a table has numbers: AlexNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.last = nn.Conv2d(3, 8, 3, 4), nn.Linear(128, 4096), nn.Linear(4096, 12)
        self.head = nn.Linear(12, CLASSES)
        with torch.no_grad():
            self.wide.weight.mul_(1e-4)
            self.last.weight.mul_(1e4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.wide(F.relu(self.stem(x)).flatten(1)))
        return self.head(F.relu(self.last(x)))


class Misread(nn.Module):
    """What litert-torch gets wrong: `repeat`, `expand`, `einsum` and a number minus a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(8, 4, 1), nn.Linear(4 * 14 * 14, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = 1 - self.stem(x)
        x = 0.5 - self.mix(x.repeat(1, 2, 1, 1))
        x = x * x.mean(-1, keepdim=True).expand_as(x)
        return self.head(torch.einsum("bchw,bcwk->bchk", x, x.softmax(-1)).flatten(1))


class Products(nn.Module):
    """Matrix products of values that are codes, a value of another layout that two layers read, a ReLU of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 24, 3, 2), nn.Conv2d(8, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.stem(x).flatten(2).chunk(3, 1)
        weights = ((q.transpose(-2, -1) @ k) * 0.3).softmax(-1)
        x = (v @ weights.transpose(-2, -1)).view(1, 8, 7, 7)
        y = self.mix(x)
        return self.head((x + F.relu(y) * y).mean((2, 3)))


class Mixed(nn.Module):
    """The ops of an integer file that the others have not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(16, 8, 1), nn.Linear(8 * 9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(x), 0.1)
        left, right = x.chunk(2, 1)
        x = torch.cat([torch.tanh(left), F.silu(right), F.avg_pool2d(x, 3, 1, 1)], 1)
        x = F.max_pool2d(self.mix(x), 2)
        return self.head((F.avg_pool2d(F.relu(x), 2) - F.relu6(x)[:, :, 1:4, 1:4]).flatten(1))


class Between(nn.Module):
    """Ops between int8 convolutions that XNNPACK computes in float only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.mix, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(F.gelu(self.wide(F.relu(self.stem(x)))))
        x = self.last(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        return self.head(F.relu(x).mean((2, 3)))


class Clamped(nn.Module):
    """Clamps of slices of codes, of which one is read in float (MobileViTv2's attention), and extremes of codes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.three, self.out = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 17, 1), nn.Conv2d(8, 8, 1)
        self.left, self.right, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        query, key, value = self.three(x).split([1, 8, 8], 1)
        x = x + self.out(F.relu(value) * (key * query.flatten(2).softmax(-1).reshape(query.shape)).sum((2, 3), True))
        x = torch.maximum(self.left(x), self.right(x[:, :8]))
        x = self.last(torch.minimum(x, torch.full((), 0.5)))
        return self.head(F.relu(self.right(F.relu(x[:, :8]))).mean((2, 3)))


class Rejoined(nn.Module):
    """Some channels go through attention in float; a clamp is between the rejoined ones and what reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.last = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left, right = x.split([8, 8], 1)
        q, k, v = (part.flatten(2) for part in self.qkv(left).split([4, 4, 8], 1))
        mixed = 8 * v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)  # far beyond the others
        x = x + self.last(F.relu(torch.cat([mixed.reshape(left.shape), right], 1)))
        return self.head(F.relu(x).mean((2, 3)))


class Shuffled(nn.Module):
    """Half of the channels are computed, and joined with the others in turn, as in a ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.last = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.relu(self.stem(x)).chunk(2, 1)
        x = torch.cat([left, F.relu(self.mix(right))], 1)
        x = x.unflatten(1, (2, 8)).transpose(1, 2).flatten(1, 2)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Dense(nn.Module):
    """Clamped channels are kept beside others of either sign, as in a DenseNet, with an average pool behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grow, self.bound = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(16, 8, 1)
        self.last, self.head = nn.Conv2d(24, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 1, 1)
        x = torch.cat([x, self.grow(x)], 1)
        x = torch.cat([x, F.relu6(self.bound(x))], 1)
        return self.head(F.relu(self.last(F.avg_pool2d(x, 2))).mean((2, 3)))


class Gated(nn.Module):
    """Channels times what their own means make of them, as in squeeze-and-excitation, and places as in GhostNetV2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.last = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3)
        self.coarse, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x * torch.sigmoid(self.gate(x.mean((-1, -2), keepdim=True)))
        x = x * F.interpolate(torch.sigmoid(self.coarse(F.avg_pool2d(x, 2))), size=x.shape[2:], mode="nearest")
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Tokens(nn.Module):
    """A class token goes beside what an int8 convolution makes of the others, as in a CoaT; keys take a softmax over
    places. The token is small: on the codes of the others it would be nothing but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.place = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.token, self.norm = nn.Parameter(torch.randn(1, 1, 8) * 0.02), nn.LayerNorm(8)
        self.qkv, self.mix, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token, x], 1)
        for _ in range(2):
            first, others = x[:, :1], x[:, 1:]
            places = others.transpose(1, 2).reshape(1, 8, 4, 4)
            x = torch.cat([first, (8 * places + self.place(places)).flatten(2).transpose(1, 2)], 1)
            q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
            x = x + self.mix(q @ (k.softmax(1).transpose(1, 2) @ v))
        return self.head(self.norm(x)[:, 0])


class Thin(nn.Module):
    """Matrices times one column, whose product gates the channels (global context), and columns times rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.place, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 1)
        self.mix, self.head = nn.Linear(1, 2), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        context = x.flatten(2).unsqueeze(1) @ self.place(x).flatten(2).softmax(-1).unsqueeze(3)
        x = x * torch.sigmoid(self.gate(context.view(1, 8, 1, 1)))
        a, b = self.mix(x.mean(1, keepdim=True).flatten(2).transpose(1, 2)).unbind(-1)
        x = x + ((a @ a.transpose(0, 1)).sigmoid() @ b).reshape(1, 1, *x.shape[2:])
        return self.head(x.mean((2, 3)))


class Curves(nn.Module):
    """Activations that the converter writes with selections, each behind a convolution, and an output in logarithms."""

    LAYERS = (nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Softplus, lambda: nn.PReLU(8), lambda: nn.Hardtanh(-2, 5))

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.mix = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in self.LAYERS)
        self.curves = nn.ModuleList(layer() for layer in self.LAYERS)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for mix, curve in zip(self.mix, self.curves, strict=True):
            x = curve(mix(x))
        return self.head(F.glu(x.repeat(1, 2, 1, 1), 1).mean((2, 3))).log_softmax(-1)


class Places(nn.Module):
    """Norms over places and channels, channels moved to places and back, pools over uneven windows, a power mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(32, 8, 1), nn.Conv2d(8, 8, 1)
        self.group, self.instance = nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True)
        self.local, self.head = nn.LocalResponseNorm(3), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.group(self.stem(x))
        x = self.mix(F.pixel_unshuffle(F.pad(x, (1, 1, 1, 1), mode="circular"), 2))
        x = self.local(F.channel_shuffle(self.instance(x), 2))
        x = self.last(torch.roll(F.adaptive_avg_pool2d(x, (5, 3)), (1, 2), (2, 3)) + F.adaptive_max_pool2d(x, (5, 3)))
        return self.head(F.adaptive_avg_pool2d(x.clamp(min=1e-3).pow(3), 1).pow(1 / 3).flatten(1))


class Resized(nn.Module):
    """An image made smaller without aliasing, and a map made larger, as two branches of one network."""

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1) for _ in range(2)])
        self.last, self.head = nn.Conv2d(8, 8, 3), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        small = self.stems[0](F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)).relu()
        x = self.stems[1](F.interpolate(x, size=(13, 11), mode="bicubic")).relu()
        x = self.last(x + F.interpolate(small, size=(13, 11), mode="bicubic", align_corners=True)).relu()
        return self.head(x.mean((2, 3)))


class Sided(nn.Module):
    """Padding of sides of their own, as TensorFlow's SAME is for strides of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.own = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, (5, 3), 2, (0, 1), groups=8, bias=False)
        self.last, self.head = nn.Conv2d(8, 16, 1), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(F.pad(x, (0, 1, 0, 1))).relu()
        x = self.last(F.pad(self.own(F.pad(x, (1, 0, 1, 2))), (0, 1))).relu()
        return self.head(x.mean((2, 3)))


class States(nn.Module):
    """Tokens are mixed through a few states, as in EfficientViM: products between convolutions of single places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.weigh, self.place = nn.Conv2d(3, 8, 4, 4), nn.Conv1d(8, 12, 1), nn.Conv2d(12, 12, 3, 1, 1)
        self.states, self.head = nn.Conv1d(8, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2)
        into, out = self.place(self.weigh(x).unflatten(2, (4, 4))).flatten(2).chunk(2, 1)
        return self.head((self.states(x @ into.softmax(-1).transpose(1, 2)) @ out + x).mean(2))


class Pooled(nn.Module):
    """Maxima over windows that reach over the edges, of values of either sign: alike on both sides, and not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 2), nn.Conv2d(24, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # 15 x 15
        x = self.mix(torch.cat([x, F.max_pool2d(x, 5, 1, 2), F.max_pool2d(x, 9, 1, 4)], 1))
        x = F.max_pool2d(F.max_pool2d(x, 3, 2, 1), 3, 2, 1)  # to 8 x 8, alike, and to 4 x 4, not
        return self.head((x * x).mean((2, 3)))


class Chosen(nn.Module):
    """Constant places of an axis, an axis in reverse, and a resize that leaves places out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, CLASSES)
        self.register_buffer("order", torch.tensor([3, 7, 1, 0, 15, 8, 2, 12, 9, 4, 11, 6, 5, 10, 14, 13]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.mix(x.flip(3))) + F.interpolate(F.interpolate(x, (3, 3)), (4, 4))
        x = x.flatten(2)
        return self.head((x + x[:, :, self.order] * x.flip(2)).mean(2))


class Asked(nn.Module):
    """The same tokens ask in every window, as those of the whole image do in GCViT."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tell, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x)).flatten(2)
        told = self.tell(x.unflatten(2, (4, 4)).permute(0, 2, 3, 1).flatten(0, 1))
        asked = x[:, :, :4].transpose(1, 2).repeat_interleave(4, 0)
        found = (asked @ told.transpose(1, 2)).softmax(-1) @ told
        return self.head(found.reshape(1, 16, 8).mean(1))


class Windowed(nn.Module):
    """Windows of codes, their places before channels, and back in another order: no axis of it stays where it was."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(16, 16, 1), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x)).reshape(1, 6, 4, 4, 4, 4).permute(0, 3, 5, 4, 2, 1)
        x = F.relu(self.mix(x.reshape(1, 16, 16, 6))).permute(0, 3, 2, 1)
        return self.head(x.reshape(1, 6, 16, 16).mean((2, 3)))


class Leaky(nn.Module):
    """Leaky ReLUs, as in Darknet and CSPNet, between convolutions, before a sum and before a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.last, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(x), 0.1)
        x = x + F.leaky_relu(self.body(x))
        return self.head(F.leaky_relu(self.last(x), 0.1).mean((2, 3)))


class Selective(nn.Module):
    """Two branches of unlike reach, each channel weighed between them, as in SKNet."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 3, 2, 2, 2)
        self.weigh, self.last, self.head = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 8, 3), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([F.relu(self.near(x)), F.relu(self.far(x))], 1)
        weights = self.weigh(both.sum(1).mean((2, 3), keepdim=True)).reshape(1, 2, 8, 1, 1).softmax(1)
        return self.head(F.relu(self.last((both * weights).sum(1))).mean((2, 3)))


class Dual(nn.Module):
    """Dual-path blocks: some channels are summed, others join, and a ReLU over all of them starts the next block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.first = nn.ModuleList([nn.Conv2d(wide, 8, 1) for wide in (12, 16, 20)])
        self.second = nn.ModuleList([nn.Conv2d(8, 12, 3, padding=1) for _ in range(3)])
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first, second in zip(self.first, self.second, strict=True):
            y = second(F.relu(first(x)))
            x = F.relu(torch.cat([x[:, :8] + y[:, :8], x[:, 8:], y[:, 8:]], 1))
        return self.head(x.mean((2, 3)))


class Paired(nn.Module):
    """Pairs of channels are summed, and what they give is read twice, as in FishNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.near = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.down = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)
        self.last_norm, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.near(F.relu(x))], 1)
        y = self.down(F.relu(self.norm(x))) + x.reshape(1, 8, 2, *x.shape[2:]).sum(2)
        y = self.last(F.relu(self.last_norm(y))) + y
        return self.head(F.relu(y).mean((2, 3)))


class Joined(nn.Module):
    """All that seven layers gave is joined at once, as in VoVNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.layers = nn.ModuleList(nn.Conv2d(size, size + 1, 3, padding=1) for size in range(6, 13))
        self.last, self.head = nn.Conv2d(6 + sum(range(7, 14)), 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        parts = [F.relu(self.stem(x))]
        for layer in self.layers:
            parts.append(F.relu(layer(parts[-1])))
        return self.head(F.relu(self.last(torch.cat(parts, 1))).mean((2, 3)))


NETS: dict[str, type[nn.Module]] = {
    "asked": Asked,
    "between": Between,
    "cnn": Cnn,
    "curves": Curves,
    "dense": Dense,
    "dual": Dual,
    "gated": Gated,
    "vit": Vit,
    "chosen": Chosen,
    "clamped": Clamped,
    "classic": Classic,
    "misread": Misread,
    "mixed": Mixed,
    "places": Places,
    "pooled": Pooled,
    "products": Products,
    "rejoined": Rejoined,
    "resized": Resized,
    "shuffled": Shuffled,
    "joined": Joined,
    "leaky": Leaky,
    "paired": Paired,
    "selective": Selective,
    "sided": Sided,
    "states": States,
    "thin": Thin,
    "tokens": Tokens,
    "windowed": Windowed,
    "wide": Wide,
}


@dataclass(frozen=True)
class Printed:
    """A file, the graph it was printed from as its runtime will compute it, and the float module."""

    module: nn.Module
    target: Target
    simulated: fx.GraphModule
    plan: quantize.Plan | None
    raw: bytes  # as the converter wrote it
    file: bytes

    def answers(self, images: list[Tensor], file: bytes | None = None) -> NDArray[np.float32]:
        """Scores of the file on its real runtime, (n, classes)."""
        engine = open_engine(file or self.file, self.target.format, engine=self.target.engine)
        if self.target.io != "float32":
            found = inspect_bytes(file or self.file, self.target.format)
            (spec,), (out,) = found.contract.inputs, found.contract.outputs
            codes = [np.rint(x.numpy().transpose(0, 2, 3, 1) / spec.scale) + spec.zero_point for x in images]
            raw = [engine.run(np.clip(x, -128, 127).astype(np.int8)) for x in codes]
            return (np.concatenate(raw).astype(np.float32) - out.zero_point) * out.scale
        nhwc = self.target.layout == "NHWC"
        ready = [x.numpy().transpose(0, 2, 3, 1) if nhwc else x.numpy() for x in images]
        return np.concatenate([engine.run(np.ascontiguousarray(x)) for x in ready]).astype(np.float32)


def scores(module: nn.Module, images: list[Tensor]) -> NDArray[np.float32]:
    with torch.no_grad():
        return torch.cat([module(image) for image in images]).numpy()


def nearest_tie(simulated: fx.GraphModule, image: Tensor) -> float:
    """How close any value that becomes a code comes to the middle between two, in steps."""
    found: list[float] = []

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n.target is torch.ops.quantized_decomposed.quantize_per_tensor.default:
                value, scale = self.map_nodes_to_values(n.args[:2], n)
                found.append(float((value / scale % 1 - 0.5).abs().min()))
            return super().run_node(n)

    with torch.no_grad():
        Watch(simulated).run(image)
    return min(found)


def images(count: int, seed: int) -> list[Tensor]:
    """Smooth images, as cameras take them."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=rng)
    return list(F.interpolate(coarse, SHAPE[2:], mode="bilinear").split(1))


def printed(net: str, target_name: str, border: str | None = None, floats: tuple[str, ...] = ()) -> Printed:
    """Capture, lower, quantize if the target asks for it but for the nodes of `floats`, and print."""
    torch.manual_seed(5)
    module, target = lively(NETS[net]()), targets.load(target_name)
    graph_module = capture(module, SHAPE)
    lower(graph_module, target.lower)
    simulated, plan, raw, int16 = graph_module, None, [], False
    onnx = target.format == "onnx"
    half = target.precision == "fp16"
    if target.calibrated:
        candidates = quantize.schemes(graph_module.graph, target)
        scheme = candidates[border] if border else next(iter(candidates.values()))
        if floats:
            scheme = plan_scheme(graph_module.graph, target, border=border or "dynamic", floats=floats)
        ranges = observe(graph_module, {*scheme.values, *scheme.dynamic.values()}, images(64, seed=1))
        plan = make_plan(scheme, ranges, every_row=target.dynamic_rows)
        lowered = graph_module
        unsigned = target.activation_codes == "uint8"
        graph_module = quantize.apply(graph_module, plan, unsigned=unsigned, pack_weights=onnx)
        wide = {}
        for node in lowered.graph.nodes:
            if is_constant(node) and node.name in plan.codes:
                codes = plan.codes[node.name]
                wide |= known(codes.scale, codes.zero_point, constant(lowered, node).numpy())
        int16 = target.precision == "int16x8"
        simulated = quantize.simulation(quantize.apply(lowered, plan, wide=int16) if int16 else graph_module)
    if onnx:
        ready = with_entrance(graph_module, layout=target.layout)
        file = onnx_printer.to_onnx(ready, quantized=plan is not None, half=half)
    else:
        compact = tflite_printer.compact
        tflite_printer.compact = lambda model: (raw.append(model), compact(model))[1]
        try:
            whole = target.io == "int8"
            form = tflite_printer.Form(half=half, only_codes=whole, wide=wide if int16 else None)
            ready = with_entrance(graph_module, layout=target.layout)
            file = tflite_printer.to_tflite(ready, quantized=plan is not None, form=form)
        finally:
            tflite_printer.compact = compact
    return Printed(module, target, simulated, plan, raw[0] if raw else file, file)
