"""Raw outputs to named answers, and the engines that give them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import runner_models as models
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper
from runner_bundles import LABELS, photo, write_directory
from scipy.special import softmax

from device_runner import engines, preprocess
from device_runner.bundle import open_bundle
from device_runner.classify import Classifier
from device_runner.engines import ENGINES, FORMATS, PACKAGES, open_engine
from device_runner.engines.onnxruntime import must_ask
from device_runner.errors import EngineError
from device_runner.manifest import Output
from device_runner.postprocess import Answer, confidences, scores, top_k

ROOT = Path(__file__).parents[2]


def output(n: int, dtype: str = "float32", kind: str = "logits", scale: float | None = None, zero: int | None = None):
    return Output(name="y", shape=(1, n), dtype=dtype, kind=kind, scale=scale, zero_point=zero)


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e4, 1e4, width=32)))
def test_logits_become_scipys_softmax(logits):
    got = confidences(logits[np.newaxis], output(len(logits)))
    np.testing.assert_allclose(got, softmax(logits.astype(np.float64)), rtol=1e-6, atol=1e-12)
    assert np.array_equal(np.array(got, np.float32), got)  # each is a 32-bit float


@given(hnp.arrays(np.int8, 7), st.floats(2**-10, 4, width=32), st.integers(-128, 127))
def test_codes_become_real_numbers(codes, scale, zero):
    got = scores(codes[np.newaxis], output(7, "int8", scale=scale, zero=zero))
    np.testing.assert_array_equal(got, [np.float32((int(c) - zero) * scale) for c in codes])


def test_probabilities_stay_as_they_are():
    codes = np.array([[-128, 0, 127]], np.int8)
    got = confidences(codes, output(3, "int8", "probabilities", 1 / 256, -128))
    assert got == (0, 0.5, 255 / 256)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_no_answer(bad: float):
    raw = np.array([[1, bad, 0]], np.float32)
    for kind in ("logits", "probabilities"):
        with pytest.raises(EngineError, match=r"for class 1\n  why: 1 of 3 scores"):
            confidences(raw, output(3, kind=kind))


def test_logits_are_not_taken_for_probabilities():
    with pytest.raises(EngineError, match="rather logits"):
        confidences(np.array([[3.0, -1.0]], np.float32), output(2, kind="probabilities"))


@pytest.mark.parametrize("raw", [np.zeros((1, 4), np.float32), np.zeros((1, 3), np.int8), np.zeros(3, np.float32)])
def test_another_shape_or_dtype_than_the_manifest_states_is_refused(raw):
    with pytest.raises(EngineError, match=r"the manifest states float32 \(1, 3\)"):
        scores(raw, output(3))


def test_equal_answers_keep_the_order_of_the_labels():
    probs = [0.2, 0.4, 0.2, 0.2]
    assert [a.index for a in top_k(probs, "abcd", 9)] == [1, 0, 2, 3]
    assert top_k(probs, "abcd", 1) == [Answer("b", 1, 0.4)]
    many = [0.5, 0.25, 0.125] * 300
    want = np.argsort(-np.array(many), kind="stable").tolist()
    assert [a.index for a in top_k(many, ["x"] * 900, 900)] == want


# Engines.


def by_hand(data: bytes, files: dict[str, bytes], tmp_path: Path) -> np.ndarray:
    """The scores of a photo by the definition of the model: one matrix product."""
    p = open_bundle(write_directory(tmp_path / "by_hand", files)).manifest.preprocess
    return np.tensordot(models.WEIGHTS, preprocess.prepare(data, p), axes=3)


def test_every_kind_of_bundle_computes_the_model(any_files: dict[str, bytes], tmp_path: Path):
    classifier = Classifier.open(write_directory(tmp_path / "b", any_files))
    want = softmax(by_hand(photo(9), any_files, tmp_path))
    answers = classifier.classify(photo(9), 5)
    assert answers[0].index == want.argmax() and [a.label for a in answers] == [LABELS[a.index] for a in answers]
    assert [a.confidence for a in answers] == pytest.approx([want[a.index] for a in answers], abs=0.03)


def test_the_engine_table_and_the_folder_agree():
    folder = {p.stem for p in (ROOT / "device_runner/engines").glob("*.py")} - {"__init__", "base"}
    modules = {where.split(":")[0].rsplit(".")[-1] for where in ENGINES.values()}
    assert modules == {name for name in folder if not name.startswith("_")}
    assert ENGINES.keys() == PACKAGES.keys() == {name for names in FORMATS.values() for name in names}


def test_a_missing_runtime_names_its_install_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "find_spec", lambda module: None)
    for format, package in (("tflite", "ai-edge-litert"), ("onnx", "onnxruntime")):
        with pytest.raises(EngineError, match=f"fix: pip install {package}"):
            open_engine(b"", format)
    with pytest.raises(EngineError, match="fix: pip install tflite-runtime 'numpy<2'"):
        open_engine(b"", "tflite", engine="tflite_runtime")


def test_without_litert_the_next_engine_is_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "is_installed", lambda name: name != "litert")
    monkeypatch.setattr(engines, "_load", lambda name: lambda model, threads: name)
    assert open_engine(b"", "tflite") == "tflite_runtime"


def test_a_broken_installation_is_not_called_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.delitem(sys.modules, "device_runner.engines.litert", raising=False)
    with pytest.raises(EngineError, match="litert is installed but cannot be imported"):
        open_engine(b"", "tflite")


@pytest.mark.parametrize(
    ("format", "engine", "words"),
    [
        ("tflite", "onnxruntime", "it runs onnx\n  fix: use litert or tflite_runtime"),
        ("onnx", "magic", "there is no such engine\n  fix: use onnxruntime"),
        ("pt2", None, "no engine runs 'pt2' models"),
    ],
)
def test_an_engine_of_another_format_is_refused(format: str, engine: str | None, words: str):
    with pytest.raises(EngineError, match=words):
        open_engine(b"", format, engine=engine)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("model", [b"", b"not a model", b"\x1c\0\0\0TFL3" + b"\0" * 64, b"\x08\x09:\xff\xff"])
def test_what_is_no_model_is_refused(format: str, model: bytes):
    with pytest.raises(EngineError, match="refused the model"):
        open_engine(model, format)


@pytest.mark.parametrize(("format", "make"), [("tflite", models.make_tflite), ("onnx", models.make_onnx)])
def test_a_wrong_input_is_an_engine_error(format: str, make: Callable[[bool], bytes]):
    engine = open_engine(make(False), format, threads=2)
    for x in (np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, *models.SHAPE), np.int8)):
        with pytest.raises(EngineError, match=f"failed on an input {x.dtype}"):
            engine.run(x)


@pytest.mark.parametrize(("format", "make"), [("tflite", models.make_tflite), ("onnx", models.make_onnx)])
def test_an_output_belongs_to_the_caller(format: str, make: Callable[[bool], bytes]):
    engine = open_engine(make(False), format)
    shape = (1, *models.SHAPE) if format == "tflite" else (1, 3, models.HEIGHT, models.WIDTH)
    first = engine.run(np.ones(shape, np.float32))
    kept = first.copy()
    engine.run(np.zeros(shape, np.float32))
    np.testing.assert_array_equal(first, kept)


def sums_of_extremes(shared: bool) -> bytes:
    """Two products of the largest codes, added: 2 x (8 x 255 x 127), once the weights are as far as they go."""
    weight = np.full((8, 4), 127, np.int8)
    held = {"one": np.float32(1), "zero": np.uint8(0), "w1": weight, "w2": weight, "zero1": np.int8(0)}
    held |= {} if shared else {"zero2": np.int8(0)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["codes"])]
    for n, zero in ((1, "zero1"), (2, "zero1" if shared else "zero2")):
        nodes.append(helper.make_node("MatMulInteger", ["codes", f"w{n}", "zero", zero], [f"product{n}"]))
    nodes.append(helper.make_node("Add", ["product1", "product2"], ["sum"]))
    nodes.append(helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph(nodes, "sums", [x], [y], [onnx.numpy_helper.from_array(np.asarray(a), n)
                                                         for n, a in held.items()])  # fmt: skip
    opset = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def test_sums_of_the_largest_codes_are_exact() -> None:
    """On x86 without VNNI, ONNX Runtime's own choice of kernels overflows here without a word."""
    engine = open_engine(sums_of_extremes(shared=False), "onnx")
    assert engine.run(np.full((1, 8), 255, np.float32)).tolist() == [[2 * 8 * 255 * 127] * 4]


@pytest.mark.parametrize(
    ("cpuinfo", "asked"),
    [
        ("flags\t\t: fpu sse2 avx2 fma avx512f\n", True),
        ("flags\t\t: fpu sse2 avx2 fma avx_vnni\n", False),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n", False),
        (None, True),
    ],
)
def test_exact_sums_are_asked_for_where_the_fast_ones_overflow(
    tmp_path: Path, cpuinfo: str | None, asked: bool
) -> None:
    """With AMX, to ask doubles the time of an int8 file."""
    (tmp_path / "proc").mkdir()
    if cpuinfo is not None:
        (tmp_path / "proc" / "cpuinfo").write_text(cpuinfo)
    assert must_ask(tmp_path) is asked


def test_a_file_that_cannot_have_exact_sums_runs_all_the_same() -> None:
    """Its golden answers then say whether it may serve."""
    engine = open_engine(sums_of_extremes(shared=True), "onnx")
    assert engine.run(np.full((1, 8), 2, np.float32)).tolist() == [[2 * 8 * 2 * 127] * 4]


def onnx_with(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(models.make_onnx(False))
    change(model)
    return model.SerializeToString()


def external_initializer(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_in_a_branch(model: onnx.ModelProto) -> None:
    inner = TensorProto(name="c", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    node = helper.make_node("Constant", [], ["v"], value=inner)
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("v", 1, [1])])
    model.graph.node.append(helper.make_node("If", ["cond"], ["w"], then_branch=branch, else_branch=branch))


def external_in_a_list_of_graphs(model: onnx.ModelProto) -> None:
    inner = TensorProto(name="c", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    graph = helper.make_graph([], "inner", [], [], [inner])
    model.graph.node[0].attribute.append(helper.make_attribute("graphs", [graph]))


def external_in_a_list_of_tensors(model: onnx.ModelProto) -> None:
    inner = TensorProto(name="c", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    model.graph.node[0].attribute.append(helper.make_attribute("tensors", [inner]))


def external_in_a_function(model: onnx.ModelProto) -> None:
    inner = TensorProto(name="c", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    node = helper.make_node("Constant", [], ["v"], value=inner)
    model.functions.append(helper.make_function("d", "f", [], ["v"], [node], [helper.make_opsetid("", 17)]))


def external_sparse(model: onnx.ModelProto) -> None:
    values = model.graph.sparse_initializer.add().values
    values.external_data.add(key="location", value="weights.bin")


EXTERNAL = (
    external_initializer,
    external_in_a_branch,
    external_in_a_list_of_graphs,
    external_in_a_list_of_tensors,
    external_in_a_function,
    external_sparse,
)


@pytest.mark.parametrize("change", EXTERNAL)
def test_onnx_with_weights_in_other_files_is_refused(change: Callable[[onnx.ModelProto], None]):
    with pytest.raises(EngineError, match="external data"):
        open_engine(onnx_with(change), "onnx")


def test_tflite_runtime_gives_litert_s_answers(tmp_path: Path, any_files: dict[str, bytes]):
    """Runs in an interpreter of its own, named by a file, because tflite_runtime and this numpy exclude each other."""
    if "model.tflite" not in any_files:
        pytest.skip("tflite_runtime runs .tflite only")
    python = Path(__file__).parent / ".venv/bin/python"
    if not python.exists():
        pytest.skip("needs tests/device_runner/.venv with tflite-runtime, 'numpy<2', pillow and msgspec")
    bundle = write_directory(tmp_path / "b", any_files)
    command = [python, "-m", "device_runner", "selftest", bundle, "--engine", "tflite_runtime"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "selftest ok: 4 golden images on tflite_runtime 2." in result.stdout
