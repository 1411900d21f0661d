"""The tables are derived from the rows, and say what speaks against them."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import report
from benchmarks.facts import Conditions, Machine
from benchmarks.rows import Failure, Row, Store
from benchmarks.tables import geometric_mean, times
from benchmarks.zoo_result import Part, Result

CONDITIONS = Conditions(
    commit="0123456789abcdef", dirty=True, code="abc",
    machine=Machine(cpu="a cpu", cores=2, memory_gib=4.0, system="Linux x86_64"),
    versions={"torch": "2.13.0", "litert-torch": "0.10.0", "ai-edge-litert": "2.3.0", "onnxruntime": "1.32.0"},
)  # fmt: skip


def row(benchmark: str, name: str, result: Any, failure: Failure | None = None, busy: float = 0.0) -> Row:
    return Row(
        benchmark=benchmark, name=name, date="2026-01-02T00:00:00+00:00", conditions=CONDITIONS, settings={},
        seconds=12.0, peak_mib=900.0, others_busy=busy, failure=failure, result=msgspec.to_builtins(result),
    )  # fmt: skip


def timed(factor: float, **facts: Any) -> Part:
    """A file that takes `factor` ms in quiet rounds and ten times that in a disturbed one, as all others do."""
    return Part(samples_ms=tuple(factor * (10 if n % 7 == 0 else 1) for n in range(50)), **facts)


def zoo_result() -> Result:
    floats = {"size_bytes": 14_000_000, "max_relative_error": 2e-6, "agreement": 1.0, "noise": 1e-6}
    return Result(
        parameters=3_500_000,
        macs=300_000_000,
        parts={
            "tflite-fp32": timed(10.0, **floats),
            "tflite-int8": timed(4.0, size_bytes=3_700_000, int8_macs=1.0, partitions=1, agreement=0.94, noise=0.1),
            "aeq-static": timed(5.0, noise=0.2),
            "aeq-dynamic": Part(failure=Failure(what="aeq-dynamic crashed", why="a bug", fix="none"), stage="make"),
            "onnx-fp32": timed(10.0, **floats),
            "onnx-int8": timed(6.0, size_bytes=3_700_000, int8_macs=1.0, agreement=0.94, noise=0.1),
            "ort-static": timed(12.0),
            "ort-static-uint8": timed(5.0),
        },
    )


GOLDEN_ZOO = [
    "- tflite: 1 of 2 convert and run.",
    "- tflite: int8 / float time, geometric mean 0.40 of 1 (a cpu, 2 cores); above 0.95: none.",
    "- onnx: above 1.05 x the better of ort-static and ort-static-uint8 (1 compared): mobilenet_v2 1.20.",
    "| mobilenet_v2 | CNN | 3.5 | 300 | 2e-06 | 10.0 | 0.40 | 0.50 | failed | 0.80 | 0.264 | 100.0 % | 1 | 94 % |",
    "- **mobilenet_v2, aeq-dynamic (make)**: aeq-dynamic crashed / why: a bug / fix: none",
    "- **swin_t, all**: the measuring process crashed / why: signal / fix: run it by hand",
    "2026-01-02; a cpu, 2 cores; commit 0123456789 with changes; torch 2.13.0, litert-torch 0.10.0, "
    "ai-edge-litert 2.3.0, onnxruntime 1.32.0.",
]


def test_the_page_of_a_zoo(tmp_path: Path) -> None:
    store = Store("zoo", tmp_path)
    store.save(row("zoo", "mobilenet_v2", zoo_result()))
    crash = Failure(what="the measuring process crashed", why="signal", fix="run it by hand")
    store.save(row("zoo", "swin_t", {}, crash))
    page = report.render(tmp_path)
    assert [line for line in GOLDEN_ZOO if line not in page] == []
    report.write(tmp_path)
    assert (tmp_path / "README.md").read_text() == page


def test_coverage_names_what_is_not_the_float_model_and_what_is_not_small(tmp_path: Path) -> None:
    good, bad = zoo_result(), zoo_result()
    bad.parts["tflite-fp32"].max_relative_error = 2e-4
    bad.parts["tflite-int8"].size_bytes = bad.parts["tflite-fp32"].size_bytes // 2
    store = Store("coverage", tmp_path)
    store.save(row("coverage", "mobilenet_v2", good))
    store.save(row("coverage", "swin_t", bad))
    page = report.render(tmp_path)
    assert "- tflite: float parity above 0.0001: swin_t 2e-04." in page
    assert "- tflite: file / float above 0.28 for 2 floats over 5 MB: swin_t 0.500." in page
    assert "- onnx: float parity above 0.0001: none." in page


def test_the_cost_of_commands(tmp_path: Path) -> None:
    store = Store("export_cost", tmp_path)
    store.save(row("export_cost", "export", {"wall_seconds": 61.234}, busy=0.7))
    store.save(row("export_cost", "help", {"samples_seconds": [0.3, 0.1, 0.2], "imports_torch": False}))
    page = report.render(tmp_path)
    assert "| export | 61.23 | 900 | 1 | busy |" in page
    assert "| help | 0.20 | 900 | 3 | imports no torch |" in page


def test_no_rows_no_sections(tmp_path: Path) -> None:
    assert "##" not in report.render(tmp_path).removeprefix("# Results")


def test_a_disturbed_round_does_not_move_a_ratio() -> None:
    assert times(timed(4.0).samples_ms, timed(10.0).samples_ms) == pytest.approx(0.4)
    assert times((), timed(1.0).samples_ms) is None


def test_two_machines_have_a_mean_each_and_one_together(tmp_path: Path) -> None:
    store, other = Store("zoo", tmp_path), zoo_result()
    other.parts["tflite-int8"] = timed(1.0)
    first, second = row("zoo", "mobilenet_v2", zoo_result()), row("zoo", "resnet18", other)
    machine = msgspec.structs.replace(CONDITIONS.machine, cpu="b cpu")
    store.save(first)
    store.save(msgspec.structs.replace(second, conditions=msgspec.structs.replace(CONDITIONS, machine=machine)))
    wanted = "geometric mean 0.20 of 2: 0.40 of 1 (a cpu, 2 cores), 0.10 of 1 (b cpu, 2 cores); above"
    assert wanted in report.render(tmp_path)


def test_the_geometric_mean_of_a_ratio_and_its_inverse_is_one() -> None:
    assert geometric_mean([0.25, 4.0]) == pytest.approx(1.0)
    assert geometric_mean([]) is None


def test_the_table_of_speed_compares_time_with_work(tmp_path: Path) -> None:
    def kind(speedup: float) -> dict[str, object]:
        times = {"whole_ms": [4.0, 4.0, 5.0], "small_ms": [2.0, 2.5, 3.0]}
        return {"speedup": speedup, "speedup_low": speedup - 0.1, "speedup_high": speedup + 0.1, **times}

    sizes = {"macs_before": 200, "macs_after": 100}
    found = row("pruning_speed", "swin_t", {**sizes, "tflite-fp32": kind(1.7), "tflite-int8": kind(1.5)})
    Store("pruning_speed", tmp_path).save(found)
    page = report.render(tmp_path)
    assert "1 of 2 files are faster by at least 0.8 of the reduction" in page
    assert "| swin_t | tflite-fp32 | 2.00 | 1.70 | 1.60 to 1.80 | 0.85 | 4.00 | 2.50 |  |" in page
    assert "| swin_t | tflite-int8 | 2.00 | 1.50 | 1.40 to 1.60 | 0.75 | 4.00 | 2.50 |  |" in page


def test_the_tables_of_pruning_say_what_was_lost_and_what_failed(tmp_path: Path) -> None:
    judged = {"images": 1000, "top1_before": 0.9, "top1_after": 0.885, "agreement": 0.95}
    sizes = {"macs_before": 200, "macs_after": 100, "parameters_before": 80, "parameters_after": 60}
    pruned = row(
        "pruning", "resnet56_2x", {"judged": judged, "pruning_seconds": 60.0, "wall_seconds": 90.0, **sizes}, busy=1.0
    )
    pruned.settings["score"] = "error"
    macs = {"macs_before": 200, "macs_after": 98}
    peer = row("pruning", "resnet56_2x_tp", {"judged": judged, "wall_seconds": 9.0, "cpu_seconds": 12.0, **macs})
    peer.settings["score"] = "Torch-Pruning, taylor"
    took = {"capture": 2.0, "prune": 1.0}
    whole = {"seconds": took, "cpu_seconds": took, "groups": 7, "frozen": 1, "error": 2e-7, "change": 0.5, **sizes}
    fails = {"failure": {"what": "it crashed", "why": "a shape is invalid", "fix": "run it by hand"}}
    answers = {"failure": None, "seconds": 8.25, **macs}
    crashed = Failure(what="pruning is not exact", why="scores differ by 1.0e+00", fix="report it")
    for one in (
        pruned,
        peer,
        row("pruning_zoo", "swin_t", whole | {"torch_pruning": answers}),
        row("pruning_zoo", "resnet18", whole | {"torch_pruning": fails}),
        row("pruning_zoo", "vgg11", {**whole, "error": 1.0}, crashed),
    ):
        Store(one.benchmark, tmp_path).save(one)
    page = report.render(tmp_path)
    line = "| resnet56_2x, error | 1,000 | 90.00 % | 88.50 % | 1.50 | 95.00 % | 50.0 % | 75.0 % | 60 | 90 | – | busy |"
    assert line in page
    assert "| resnet56_2x_tp, Torch-Pruning, taylor | 1,000 |" in page and "| 49.0 % | – | – | 9 | 12 |  |" in page
    assert "2 of 3 architectures can be pruned by 30 %" in page
    assert "| swin_t | 50.0 % | 7 | 1 | 2e-07 | 5e-01 | – | 2.0 | 1.0 | 3.0 | 8.2 s, 49.0 % |  |" in page
    assert "| fails: a shape is invalid |" in page
    assert "Torch-Pruning, asked for 2 of them with 100 s each, gives a model that answers for 1;" in page
    assert "**vgg11**: pruning is not exact" in page
