"""Files are timed in new processes, in the same rounds; one that does not run is told."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import zoo_times
from benchmarks.zoo_times import Ready, TimingError, times

PROCESSES = 2


def scaling(op: str) -> bytes:
    """y = op(x, 2) of (1, 4) float32."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    graph = helper.make_graph([helper.make_node(op, ["x", "two"], ["y"])], "scaling", ports[:1], ports[1:], [two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_all_files_are_in_every_round_of_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo_times, "PROCESSES", PROCESSES)
    fed = np.ones((1, 4), np.float32)
    files = {name: Ready(scaling(name), fed) for name in ("Mul", "Add")}
    taken = times("onnx", files, tmp_path, min_rounds=PROCESSES * 4 - 1, max_seconds=PROCESSES * 20.0, seed=0)
    assert set(taken) == {"Mul", "Add"}
    assert len(taken["Mul"]) == len(taken["Add"]) >= PROCESSES * 4
    assert min(taken["Mul"] + taken["Add"]) > 0


def test_a_file_that_does_not_run_is_told(tmp_path: Path) -> None:
    wrong = Ready(scaling("Mul"), np.ones((1, 5), np.float32))
    with pytest.raises(TimingError, match="a timing process crashed"):
        times("onnx", {"good": Ready(scaling("Mul"), np.ones((1, 4), np.float32)), "bad": wrong}, tmp_path,
              min_rounds=1, max_seconds=0.1, seed=0)  # fmt: skip
