"""Each step of an export alone, where the whole story would hide what it does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from device_runner.engines import open_engine
from device_runner.manifest import Latency, Preprocess
from shrink import targets
from shrink.data.images import Arrays, Images, from_source
from shrink.data.split import Split
from shrink.data.stream import SkipLog
from shrink.errors import ArtifactError, CalibrationError, ModelError
from shrink.models import Model
from shrink.progress import Quiet
from shrink.recipe import ExportRecipe
from shrink.report.schema import Timing
from shrink.steps import threads
from shrink.steps.bundling import is_ours, labels
from shrink.steps.calibrating import HELD_OUT_EVERY, HELD_OUT_LEAST, HELD_OUT_MOST, _Images, calibrate, most_held_out
from shrink.steps.capturing import capture_model, lower_all
from shrink.steps.clock import Clock
from shrink.steps.loading import Job
from shrink.steps.reporting import _not_faster
from shrink.steps.sanity import FloatModel, check_float
from shrink.steps.timing import Timed
from shrink.steps.verifying import _parity, _unlike_simulation
from shrink.steps.writing import write

GREY = Preprocess(
    color="L", exif=True, resize="exact", size=(8, 8), filter="bilinear", crop=None, mean=(0.0,), std=(1.0,)
)
RNG = np.random.default_rng(0)


def pictures(count: int) -> Images:
    """Smooth pictures, the n-th with a corner pixel of grey level n; their labels are n % 2."""
    ramp = np.add.outer(np.arange(8), np.arange(8)) * 12
    pixels = np.stack([np.clip(ramp + n, 0, 255) for n in range(count)]).astype(np.uint8)
    pixels[:, 0, 0] = np.arange(count)
    refs = [str(n) for n in range(count)]
    return from_source("pictures", Arrays(pixels), refs, labels=np.arange(count) % 2, classes=("even", "odd"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # one draw in a hundred has no live channel, and answers a constant
        self.conv = nn.Conv2d(1, 3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.conv(x))).mean((2, 3)))


def job(module: nn.Module, *, weights: str = "factory", count: int = 40, wanted: tuple[str, ...] = ()) -> Job:
    model = Model(
        module=module.eval().requires_grad_(False),
        spec="net.py:make",
        preprocess=GREY,
        input_shape=(1, 1, 8, 8),
        outputs=2,
        labels=None,
        weights=weights,
        checkpoint_sha256=None,
    )
    images = pictures(count)
    split = Split(images, images, ())
    names = wanted or targets.names()
    return Job(
        ExportRecipe(model="net.py:make", data="pictures"),
        tuple(map(targets.load, names)),
        model,
        FloatModel(module, takes_batches=True),
        split,
        (),
    )


# --- capturing


def test_the_graphs_are_the_model_and_share_its_weights() -> None:
    torch.manual_seed(0)
    asked = job(Net())
    before = {name: tensor.clone() for name, tensor in asked.model.module.state_dict().items()}
    graphs = lower_all(asked, capture_model(asked))
    assert set(graphs) == {asked.rules(target) for target in asked.files}
    x = torch.rand(1, 1, 8, 8)
    for lowered in graphs.values():
        torch.testing.assert_close(lowered.graph(x), asked.model.module(x), atol=1e-5, rtol=0)
    heads = {
        tensor.data_ptr()
        for lowered in graphs.values()
        for tensor in (*lowered.graph.parameters(), *lowered.graph.buffers())
        if tensor.shape == (2, 3)
    }
    assert heads == {asked.model.module.head.weight.data_ptr()}
    assert all(torch.equal(before[name], tensor) for name, tensor in asked.model.module.state_dict().items())


def test_rules_that_did_the_same_share_a_graph() -> None:
    asked = job(Net())
    graphs = lower_all(asked, capture_model(asked))
    normalized = {id(graphs[asked.rules(target)]) for target in asked.files if target.io == "float32"}
    levels = {id(graphs[asked.rules(target)]) for target in asked.files if target.io != "float32"}
    assert len(normalized) == len(levels) == 1  # no patches to be made linear, no norms to be taken apart
    assert normalized != levels


def test_every_file_is_written_once_and_floats_come_first() -> None:
    asked = job(Net(), wanted=("onnx-int8", "tflite-fp32", "tflite-int8"))
    assert [target.name for target in asked.files] == ["onnx-fp32", "tflite-fp32", "onnx-int8", "tflite-int8"]


# --- calibrating


@pytest.mark.parametrize(
    ("size", "most"), [(28, HELD_OUT_MOST), (160, 62), (224, HELD_OUT_LEAST), (512, HELD_OUT_LEAST)]
)
def test_of_small_images_more_judge(size: int, most: int) -> None:
    assert most_held_out((1, 3, size, size)) == most


def test_held_out_images_set_no_range_and_none_is_lost() -> None:
    asked = job(Net())
    with Quiet().stage("") as stage:
        given = _Images(asked, SkipLog(), stage)
        seen = [round(float(x[0, 0, 0, 0]) * 255) for x in given]
    held = [round(float(x[0, 0, 0, 0]) * 255) for x in given.held_out]
    assert len(held) == 40 // HELD_OUT_EVERY and given.count == 40
    assert sorted(seen + held) == list(range(40))
    assert seen != sorted(seen)  # not in the order of the classes
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in given.held_out)  # none keeps its batch in memory


def test_images_that_are_refused_are_refused_at_the_end() -> None:
    asked = job(Net())
    flat = from_source("flat", Arrays(np.full((40, 8, 8), 7, np.uint8)), [""] * 40, labels=None, classes=None)
    asked = replace(asked, split=replace(asked.split, calibration=flat))
    with Quiet().stage("") as stage, pytest.raises(CalibrationError):
        list(_Images(asked, SkipLog(), stage))


# --- the float model


class PerBatch(nn.Module):
    """What a careless author writes: fine for one image, wrong for several."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean(), x.std()]).expand(len(x), 2)


@pytest.mark.parametrize(("module", "batches"), [(Net(), True), (PerBatch(), False)])
def test_a_model_is_run_in_batches_only_if_that_changes_nothing(module: nn.Module, batches: bool) -> None:
    module.eval()
    found, _ = check_float(job(module).model, pictures(40))
    assert found.takes_batches is batches
    x = RNG.random((5, 1, 8, 8), dtype=np.float32)
    one_by_one = np.concatenate([FloatModel(module, takes_batches=True)(x[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(found(x), one_by_one, atol=1e-6)


def test_random_weights_are_noted_even_if_they_answer_a_constant() -> None:
    """torchvision's vit_b_16 starts with a last layer of zeros."""
    module = Net()
    nn.init.zeros_(module.head.weight)
    _, notes = check_float(job(module, weights="random").model, pictures(40))
    assert "the weights are random" in notes[0]
    with pytest.raises(ModelError, match="very same scores for 8 different images"):
        check_float(job(module).model, pictures(40))


def test_a_model_is_not_blamed_for_images_that_are_all_the_same() -> None:
    same = from_source("same", Arrays(np.full((9, 8, 8), 7, np.uint8)), [""] * 9, labels=[0] * 9, classes=None)
    check_float(job(Net()).model, same)


# --- verifying


@pytest.mark.parametrize("given", [[1.0, 2.01], [1.0, float("nan")], [1.0, float("inf")]])
def test_a_float_file_that_answers_something_else_is_noticed(given: list[float]) -> None:
    with pytest.raises(ArtifactError, match="the float file of onnx-fp32 does not answer what the model answers"):
        _parity("onnx-fp32", np.array([given], np.float32), np.array([[1.0, 2.0]], np.float32))


def test_a_float_file_may_round_otherwise() -> None:
    assert _parity("", np.float32([[1.0, 2.0001]]), np.float32([[1.0, 2.0]])) == pytest.approx(5e-5, rel=0.01)


def test_a_file_that_is_not_what_was_quantized_is_noted() -> None:
    """The scale of the last layer's constants is three times as large in the file."""
    asked = job(Net(), wanted=("onnx-int8",))
    graphs = lower_all(asked, capture_model(asked))
    with Quiet().stage("") as stage:
        made = write(asked, graphs, calibrate(asked, graphs, SkipLog(), stage), stage)["onnx-int8"]
    assert _unlike_simulation(made) == ()
    graph = onnx.load_from_string(made.model)
    stored = {held.name: held for held in graph.graph.initializer}
    weights = [node for node in graph.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    scale = stored[weights[-1].input[1]]
    scale.CopyFrom(onnx.numpy_helper.from_array(3 * onnx.numpy_helper.to_array(scale), scale.name))
    engine = open_engine(graph.SerializeToString(), "onnx", engine=made.candidate.engine.name)
    (note,) = _unlike_simulation(replace(made, candidate=replace(made.candidate, engine=engine)))
    assert note.startswith("onnx-int8: its scores err by ") and "the file is not what was quantized" in note


# --- reporting


SAID = "than its float file on this host"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (2.351, 2.38, [f"onnx-int8 is slower {SAID}, 2.35 to 2.38 times its time"]),
        (0.98, 1.3, [f"onnx-int8 is not faster {SAID}, 0.98 to 1.30 times its time"]),
        (0.4, 0.9, []),
        (None, None, []),
    ],
)
def test_a_target_that_is_not_surely_faster_than_float_is_noted(
    low: float | None, high: float | None, said: list[str]
) -> None:
    latency = Latency(median_ms=1.0, p90_ms=1.0, ratio_to_float=1.0, samples=50, host="")
    timed = {"onnx-int8": Timed(latency, Timing(samples_ms=(1.0,), ratio_low=low, ratio_high=high))}
    assert list(_not_faster(timed, "int8 dot products (i8mm)")) == said
    why = ": this processor has no int8 dot products, which int8 gains from"
    assert list(_not_faster(timed, "no int8 dot products")) == [text + why for text in said]
    half = {"onnx-fp16": timed["onnx-int8"]}  # whose time has other reasons
    assert list(_not_faster(half, "no int8 dot products")) == [text.replace("int8", "fp16") for text in said]


# --- bundling


def test_labels_are_the_data_s_then_the_model_s_then_numbers() -> None:
    model, images = job(Net()).model, pictures(4)
    named = replace(model, labels=("cat", "dog"))
    assert labels(named, images) == ("even", "odd")
    assert labels(named, replace(images, classes=None)) == ("cat", "dog")
    assert labels(model, replace(images, classes=None, names={1: "odd"})) == ("class 0", "odd")


def test_only_what_an_export_writes_may_be_removed(tmp_path: Path) -> None:
    (tmp_path / "tflite-int8").mkdir()
    (tmp_path / "tflite-int8" / "manifest.json").touch()
    (tmp_path / "photos").mkdir()
    for name in ("report.json", "report.md", "notes.md"):
        (tmp_path / name).touch()
    assert {path.name for path in tmp_path.iterdir() if is_ours(path)} == {"report.json", "report.md", "tflite-int8"}


# --- threads and time


@pytest.mark.parametrize("error", [None, ValueError])
def test_the_number_of_threads_is_restored(error: type[Exception] | None) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        try:
            with threads.threads_per_op(1):
                assert torch.get_num_threads() == 1
                if error is not None:
                    raise error
        except ValueError:
            pass
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_workers_are_the_processors_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert threads.workers() == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert threads.workers() == threads.MOST_WORKERS
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert threads.workers() == 2


def test_the_clock_keeps_the_steps_that_ended_well_in_order() -> None:
    clock = Clock(Quiet())
    with clock.stage("one"):
        pass
    with pytest.raises(ValueError), clock.stage("two"):
        raise ValueError
    with clock.stage("three"):
        pass
    assert list(clock.seconds) == ["one", "three"] and all(seconds >= 0 for seconds in clock.seconds.values())
