"""Small files of known structure: converted float files, peers' int8 files of them, and ONNX twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

SHAPE = (1, 3, 32, 32)


class Net(nn.Module):
    """A convolutional net without anything that XNNPACK would not take."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, stride=2)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = nn.functional.relu6(self.depthwise(x))
        return self.head(self.pointwise(x).mean((2, 3)))


class Attention(nn.Module):
    """One attention block: LayerNorm, softmax, GELU and products of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, stride=4)
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.transpose(-1, -2) * 0.17, -1) @ v)
        return self.head(nn.functional.gelu(x).mean(1))


class Cut(nn.Module):
    """Two convolutions with an op between them that XNNPACK does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(torch.cumsum(torch.relu(self.before(x)), 1))


def _quantize(path: Path, recipe_name: str) -> Path:
    """A peer's quantized file of a float file."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(str(path))
    made.load_quantization_recipe(getattr(recipe, recipe_name)())
    ranges: Any = None
    if recipe_name.startswith("static"):
        signatures = Interpreter(str(path)).get_signature_list()
        key = next(iter(signatures))
        rng = np.random.default_rng(0)
        images = [{signatures[key]["inputs"][0]: rng.standard_normal(SHAPE, np.float32)} for _ in range(4)]
        ranges = made.calibrate({key: images})
    out = path.with_name(f"{path.stem}_{recipe_name}.tflite")
    made.quantize(ranges).export_model(str(out), overwrite=True)
    return out


RECIPES = {"static": "static_wi8_ai8", "dynamic": "dynamic_wi8_afp32", "weights": "weight_only_wi8_afp32"}


@pytest.fixture(scope="session")
def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"net": Net().eval(), "attention": Attention().eval(), "cut": Cut().eval()}


@pytest.fixture(scope="session")
def tflite_files(models: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`net`, `attention`, `cut` in float; `net_static`, `attention_dynamic` and so on by a peer."""
    import litert_torch

    folder = tmp_path_factory.mktemp("tflite")
    files = {name: folder / f"{name}.tflite" for name in models}
    for name, model in models.items():
        litert_torch.convert(model, (torch.randn(SHAPE),)).export(str(files[name]))
    for name in ("net", "attention"):
        files |= {f"{name}_{word}": _quantize(files[name], recipe) for word, recipe in RECIPES.items()}
    return files


class _Images:
    """What onnxruntime's quantizer reads calibration data from."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._left = [{"x": rng.standard_normal(SHAPE, np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


@pytest.fixture(scope="session")
def onnx_files(models: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`net` and `attention` in float, `_static` and `_dynamic` by onnxruntime's own quantizer."""
    from onnxruntime.quantization import QuantFormat, quantize_dynamic, quantize_static

    folder = tmp_path_factory.mktemp("onnx")
    files = {}
    for name in ("net", "attention"):
        files |= {name + end: folder / f"{name}{end}.onnx" for end in ("", "_static", "_dynamic")}
        torch.onnx.export(models[name], (torch.randn(SHAPE),), files[name], dynamo=True, external_data=False,
                          input_names=["x"], output_names=["y"], verbose=False)  # fmt: skip
        quantize_static(files[name], files[f"{name}_static"], _Images(), quant_format=QuantFormat.QDQ, per_channel=True)
        quantize_dynamic(files[name], files[f"{name}_dynamic"])
    return files
