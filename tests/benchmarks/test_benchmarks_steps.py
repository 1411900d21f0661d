"""The benchmark makes what the export makes: one int8 file, without labels and without its float twin."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.images import some_images
from benchmarks.steps import make
from benchmarks.zoo_result import Part
from benchmarks.zoo_row import check_simulated, noise
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


@pytest.mark.parametrize(
    ("file", "simulated", "fails"),
    [(0.07, 0.06, False), (0.96, 0.07, True), (0.04, 0.001, False), (0.9, 0.8, False), (float("nan"), 0.1, True)],
)
def test_a_file_that_errs_much_more_than_its_simulation_fails(file: float, simulated: float, *, fails: bool) -> None:
    wanted = np.random.default_rng(0).normal(size=(16, 10)).astype(np.float32)
    error = np.random.default_rng(1).normal(size=wanted.shape).astype(np.float32)
    unit = error / noise(wanted + error, wanted)
    part = Part(noise=noise(wanted + np.float32(file) * unit, wanted))
    check_simulated(part, wanted + np.float32(simulated) * unit, wanted)
    assert part.simulated_noise == pytest.approx(simulated, rel=1e-4)
    assert (part.failure is not None) == fails
