"""Files nobody vouches for: whatever happens to the child, the parent answers in three lines."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from shrink.errors import RequestError
from shrink.inspect import guard, kind
from shrink.inspect.truth import Inspection, inspect_file

MUTANTS = 200


def mutants(data: bytes) -> list[bytes]:
    """Truncated, a bit flipped, a block zeroed, four bytes overwritten, an offset beyond the end, bytes in between.

    In turn, at random places; every other one near the start, where the structure is.
    """
    rng = np.random.default_rng(0)
    made = []
    for i in range(MUTANTS):
        at, harm = int(rng.integers(8, (len(data) if i % 2 else min(len(data), 3000)) - 4)), bytearray(data)
        match i % 6:
            case 0:
                harm = harm[:at]
            case 1:
                harm[at] ^= 1 << int(rng.integers(8))
            case 2:
                harm[at : at + 512] = bytes(len(harm[at : at + 512]))
            case 3:
                harm[at : at + 4] = rng.integers(0, 256, 4).astype(np.uint8).tobytes()
            case 4:
                harm[at : at + 4] = b"\xff\xff\xff\x7f"
            case 5:
                harm[at:at] = rng.integers(0, 256, 8).astype(np.uint8).tobytes()
        made.append(bytes(harm))
    return made


def outcome(data: bytes) -> str:
    try:
        guard.check(data, "tflite", "mutant.tflite", timeout_s=60)
    except RequestError as error:
        assert all((error.what, error.why, error.fix)) and "\n" not in error.why
        return error.what
    return "read"


FORKS = """
import json, os, pathlib, sys, tempfile
from importlib import import_module
from shrink.inspect import child
import_module(f"shrink.inspect.{sys.argv[2]}")  # before the forks: its runtime takes a second
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    pid = os.fork()
    if not pid:
        for number, file in enumerate((path.open("rb"), out, err)):
            os.dup2(file.fileno(), number)
        code = 1
        try:
            code = child.main(sys.argv[2], path.stat().st_size, f"mutant.{sys.argv[2]}")
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps([code, *((f.seek(0), f.read().decode())[1] for f in (out, err))]))
"""
"""The child's own code, forked for each file of a folder: no interpreter to start each time."""


@pytest.mark.parametrize("fmt", ["tflite", "onnx"])
def test_no_damaged_file_harms_the_parent(
    fmt: str, tflite_files: dict[str, Path], onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    whole = {"tflite": tflite_files, "onnx": onnx_files}[fmt]["net_static"].read_bytes()
    for i, mutant in enumerate(mutants(whole)):
        (tmp_path / f"{i:03}").write_bytes(mutant)
    forks = subprocess.run([sys.executable, "-c", FORKS, str(tmp_path), fmt], capture_output=True, check=True)
    ends = [json.loads(line) for line in forks.stdout.splitlines()]
    assert len(ends) == MUTANTS
    assert [
        (err[-300:]) for code, _, err in ends if code not in (0, guard.REFUSED) and code > 0
    ] == []  # no bug of ours
    read = [msgspec.json.decode(out, type=Inspection) for code, out, _ in ends if code == 0]
    assert read  # a flip in a weight is a valid file
    refused = [
        guard._failure(f"mutant.{fmt}", subprocess.CompletedProcess([], code, out.encode(), err.encode()))
        for code, out, err in ends
        if code
    ]
    assert all("mutant" in error.what for error in refused)
    assert any(f"mutant.{fmt} is a damaged" in error.what for error in refused)


def test_a_name_that_is_not_text_is_shown_all_the_same(onnx_files: dict[str, Path]) -> None:
    """Protobuf hands such a string over as bytes."""
    data = onnx_files["net"].read_bytes()
    model = onnx.load_model_from_string(data)
    name = next(node.name for node in model.graph.node if node.op_type == "Conv").encode()
    assert guard.check(data.replace(name, b"\xff" * len(name)), "onnx").records


def test_the_guard_itself_outlives_damaged_files(tflite_files: dict[str, Path]) -> None:
    with ThreadPoolExecutor(3) as pool:
        outcomes = set(pool.map(outcome, mutants(tflite_files["net_static"].read_bytes())[::10]))
    assert outcomes >= {"mutant.tflite is a damaged TFLite file", "read"}


@pytest.mark.parametrize("cut", [1, 100, 1000, 5000])
def test_a_truncated_onnx_file_is_refused(onnx_files: dict[str, Path], cut: int) -> None:
    with pytest.raises(RequestError, match=r"half\.onnx"):
        guard.check(onnx_files["net"].read_bytes()[:cut], "onnx", "half.onnx")


@pytest.mark.parametrize("name", ["net_static", "attention_dynamic"])
def test_the_child_says_what_the_parent_would(tflite_files: dict[str, Path], name: str) -> None:
    path = tflite_files[name]
    assert guard.inspect_untrusted(path) == inspect_file(path)


def test_the_child_says_what_the_parent_would_of_onnx(onnx_files: dict[str, Path]) -> None:
    path = onnx_files["net_static"]
    assert guard.inspect_untrusted(path) == inspect_file(path)


def run_instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the child run other code than the inspection."""

    def command(data: bytes, fmt: str, name: str, timeout_s: float) -> subprocess.CompletedProcess[bytes]:
        other = [sys.executable, "-c", code]
        return subprocess.run(other, input=data, capture_output=True, timeout=timeout_s, check=False)

    monkeypatch.setattr(guard, "_run", command)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import os; os.kill(os.getpid(), 11)", "kills the process that reads it\n  why: it died of SIGSEGV"),
        ("import os; os.abort()", "kills the process that reads it\n  why: it died of SIGABRT"),
        ("raise MemoryError", "cannot be inspected\n  why: MemoryError"),
        ("raise SystemExit(2)", "cannot be inspected\n  why: the child process gave no answer"),
        ("print('{')", "cannot be inspected\n  why: the child's answer is damaged"),
        ("import time; time.sleep(30)", "takes too long to read\n  why: no answer within 1 s"),
    ],
)
def test_every_death_of_the_child_has_its_words(monkeypatch: pytest.MonkeyPatch, code: str, what: str) -> None:
    run_instead(monkeypatch, code)
    with pytest.raises(RequestError) as caught:
        guard.check(b"\x1c\0\0\0TFL3", "tflite", "sly.tflite", timeout_s=1)
    assert what in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_child_is_limited() -> None:
    code = """
import resource, sys
from shrink.inspect import child
child.limit(1000)
print([resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE)])
sys.stdout.flush()
bytearray(20 << 30)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    space, cpu, core = json.loads(run.stdout)
    assert 0 < space < 16 << 30 and 0 < cpu <= 600 and core == 0
    assert "MemoryError" in run.stderr


WRONG = {
    "model.tflite": (b"\x08\x08\x12\x07pytorch", "are those of an ONNX model", "call it .onnx"),
    "model.onnx": (b"\x1c\0\0\0TFL3rest", "are those of a TFLite model", "call it .tflite"),
    "weights.tflite": (b"PK\x03\x04rest", "are those of a zip archive", "give the model file itself"),
    "pickle.onnx": (b"\x80\x02}q\0.", "are those of a Python pickle", "give the model file itself"),
    "page.tflite": (b"<!DOCTYPE html>", "are those of a web page", "give the model file itself"),
    "empty.onnx": (b"", "are those of an empty file", "give the model file itself"),
    "noise.tflite": (b"\x07" * 64, "does not have the mark 'TFL3'", "give the model file itself"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str) -> None:
    data, why, fix = WRONG[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RequestError) as caught:
        guard.inspect_untrusted(tmp_path / name)
    assert why in caught.value.why and caught.value.fix == fix and caught.value.exit_code == 2


def test_names_that_cannot_be_inspected(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"did you mean '\.tflite'"):
        kind.of_name("model.tflit")
    with pytest.raises(RequestError, match="no regular file"):
        guard.inspect_untrusted(tmp_path / "absent.tflite")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(RequestError, match="no regular file"):
        guard.inspect_untrusted(tmp_path / "folder.onnx")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shrink.inspect", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_prints_the_label_first_and_json_on_request(tflite_files: dict[str, Path]) -> None:
    path = str(tflite_files["net_static"])
    text = command(path)
    assert text.returncode == 0 and text.stdout.startswith("int8 work      100.0 % of 278,848 multiply-accumulates")
    found = json.loads(command(path, "--json").stdout)
    assert found["truth"]["delegate_partitions"] == 1 and set(found) == set(Inspection.__dataclass_fields__)


def test_the_command_ends_with_2_and_three_lines(tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"\x07" * 64)
    run = command(str(tmp_path / "bad.tflite"))
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 3)


def test_inspecting_brings_neither_torch_nor_a_runtime_into_the_parent() -> None:
    code = "import sys, shrink.inspect.guard, shrink.inspect.render; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{name}'" in loaded for name in ("torch", "onnxruntime", "ai_edge_litert", "onnx"))
