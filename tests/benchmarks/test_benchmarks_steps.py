"""The benchmark makes what the export makes: one int8 file, without labels and without its float twin."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.images import some_images
from benchmarks.steps import make
from device_runner.manifest import Preprocess
from shrink import models, targets
from shrink.data.stream import stream
from shrink.graph.capture import capture

ROOT = Path(__file__).parents[2]
GREY = Preprocess(
    color="L", exif=True, resize="exact", size=(28, 28), filter="bilinear", crop=None, mean=(0.286,), std=(0.353,)
)


def test_one_int8_file_answers_as_torch_does(tmp_path: Path) -> None:
    demo = ROOT / "recipes" / "demo"
    model = models.load(f"{demo}/models.py:cnn", checkpoint=demo / "cnn.safetensors", preprocess=GREY)
    images = some_images(tmp_path / "no shared folder", tmp_path, 40)
    made = make(model, capture(model.module, model.input_shape), targets.load("onnx-int8"), images)
    assert made.target.name == "onnx-int8"
    assert made.inspection.truth.int8_mac_share > 0.9
    x = next(iter(stream(images, model.preprocess))).x
    with torch.no_grad():
        wanted = model.module(torch.from_numpy(x)).numpy()
    assert float(np.corrcoef(made.candidate.run(x).ravel(), wanted.ravel())[0, 1]) > 0.99
