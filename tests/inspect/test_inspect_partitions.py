"""What the delegate took, against graphs of known structure and against the runtime's memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from ai_edge_litert.interpreter import Interpreter

from shrink.inspect import partitions
from shrink.inspect.truth import inspect_file


def test_a_net_that_xnnpack_takes_whole_is_one_partition(tflite_files: dict[str, Path]) -> None:
    for name in ("net", "net_static"):
        truth = inspect_file(tflite_files[name]).truth
        assert (truth.delegate, truth.delegate_partitions, truth.undelegated_ops) == ("XNNPACK", 1, ())


def test_an_op_in_the_middle_that_xnnpack_does_not_take_makes_two_partitions(tflite_files: dict[str, Path]) -> None:
    found = inspect_file(tflite_files["cut"])
    assert (found.truth.delegate_partitions, found.truth.undelegated_ops) == (2, ("CUMSUM",))
    assert [r.op for r in found.records if r.delegated is False] == ["CUMSUM"]


def test_dynamic_depthwise_is_left_to_the_runtime(tflite_files: dict[str, Path]) -> None:
    truth = inspect_file(tflite_files["net_dynamic"]).truth
    assert (truth.delegate_partitions, truth.undelegated_ops) == (2, ("DEPTHWISE_CONV_2D",))


def test_a_fully_int8_vit_is_cut_into_many(tflite_files: dict[str, Path]) -> None:
    truth = inspect_file(tflite_files["attention_static"]).truth
    assert truth.delegate_partitions is not None and truth.delegate_partitions > 4
    assert set(truth.undelegated_ops) >= {"BATCH_MATMUL", "GELU", "RSQRT", "SOFTMAX", "SQUARED_DIFFERENCE"}


@pytest.mark.parametrize("name", ["net_dynamic", "cut", "attention_static", "attention_dynamic", "net_weights"])
def test_results_have_memory_exactly_where_a_partition_ends_or_the_runtime_works(
    tflite_files: dict[str, Path], name: str
) -> None:
    """The runtime gives no memory to a result that lives inside a partition: an answer from another side."""
    data = tflite_files[name].read_bytes()
    runtime = Interpreter(model_content=data, num_threads=1)
    runtime.allocate_tensors()
    details = runtime._get_ops_details()
    nodes = [d for d in details if d["op_name"] != "DELEGATE"]
    cut = partitions.of(data, len(nodes), name)
    assert cut is not None and cut.count == len(details) - len(nodes)
    leaves = {int(t) for d in details[len(nodes) :] for t in d["outputs"]}
    for node in nodes:
        for tensor in map(int, node["outputs"]):
            works = node["index"] not in cut.delegated
            assert partitions._has_memory(runtime, tensor) == (works or tensor in leaves), node["op_name"]


def test_a_result_that_nothing_reads_is_still_placed() -> None:
    """Node 1 is in the partition although no way leads back to it: its result has no memory."""

    class Runtime:
        def _get_ops_details(self) -> list[dict[str, object]]:
            rows = [("ADD", [0], [1]), ("ABS", [0], [2]), ("CUMSUM", [0], [3]), ("DELEGATE", [0], [1])]
            return [{"index": i, "op_name": n, "inputs": a, "outputs": b} for i, (n, a, b) in enumerate(rows)]

        def get_output_details(self) -> list[dict[str, int]]:
            return [{"index": 1}]

        def get_tensor(self, tensor: int) -> None:
            if tensor == 2:
                raise ValueError("Tensor data is null")

    assert partitions._cut(Runtime(), 3) == partitions.Partitions(1, frozenset({0, 1}))
