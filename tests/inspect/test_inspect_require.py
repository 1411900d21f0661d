"""What is required of a file is read strictly, and judged by what the file has."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_cli import run_cli

from device_runner.manifest import TruthLabel
from shrink.errors import RequestError
from shrink.inspect.old_runtime import Compatibility
from shrink.inspect.ops import Contract, OpRecord
from shrink.inspect.require import KEYS, parse, unmet
from shrink.inspect.truth import Inspection

TRUTH = TruthLabel(
    int8_mac_share=0.9,
    dynamic_mac_share=0.25,
    int8_weight_share=0.5,
    macs=1000,
    ops=7,
    delegate="XNNPACK",
    delegate_partitions=2,
    undelegated_ops=("CUMSUM",),
    leftovers=(),
    input_dtype="float32",
    output_dtype="float32",
)
OLD = Compatibility("tflite-runtime 2.14", False, ("GELU is version 3: it has 2",))


def op(index: int, macs: int, delegated: bool) -> OpRecord:
    return OpRecord(index, "CONV_2D", 1, "", (), "int8", (), macs, 0, "int8", True, "int8", delegated)


FILE = Inspection("tflite", 500_000, TRUTH, Contract((), ()), (op(0, 800, True), op(1, 200, False)), OLD, ())


@pytest.mark.parametrize(
    ("met", "missed", "words"),
    [
        ("int8=0.9", "int8=0.91", "it is 0.9"),
        ("int8=90%", "int8=91%", "it is 0.9"),
        ("static=0.65", "static=0.66", "it is 0.65"),
        ("weights=0.5", "weights=0.51", "it is 0.5"),
        ("partitions=2", "partitions=1", "it is 2"),
        ("delegated=80%", "delegated=0.81", "it is 0.8"),
        ("undelegated=1", "undelegated=0", "it is 1"),
        ("size=500kB", "size=499.9kB", "it is 500,000"),
        ("size=500000", "size=488KiB", "it is 500,000"),
        ("size=0.5MB", "size=0B", "it is 500,000"),
        (None, "tflite-runtime=2.14", "it is does not run on tflite-runtime 2.14: GELU is version 3"),
    ],
)
def test_each_key_holds_up_to_its_bound_and_no_further(met: str | None, missed: str, words: str) -> None:
    if met is not None:
        assert list(unmet(FILE, parse([met]))) == []
    (line,) = unmet(FILE, parse([missed]))
    assert line.startswith(f"not met: {missed}; {words}")


def test_every_example_is_understood() -> None:
    assert [parse([key.example])[0].key for key in KEYS.values()] == list(KEYS)


def test_several_in_one_text_or_in_many() -> None:
    assert parse(["int8=1, partitions=1", "size=1MB"]) == parse(["int8=1", "partitions=1", "size=1MB"])


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("int8", "'int8' is not understood", "use int8=0.95"),
        ("", "'' is not understood", "use int8=0.95"),
        ("int8=1,", "'' is not understood", "use int8=0.95"),
        ("itn8=1", "does not know 'itn8'", "did you mean 'int8'?"),
        ("macs=1", "does not know 'macs'", "use one of: delegated, int8, opset"),
        ("INT8=1", "does not know 'INT8'", "use one of"),
        ("int8=", "int8 is ''", "write int8=0.95"),
        ("int8=1.01", "int8 is '1.01'", "write int8=0.95"),
        ("int8=-0.1", "int8 is '-0.1'", "write int8=0.95"),
        ("int8=nan", "int8 is 'nan'", "write int8=0.95"),
        ("int8=1e-1", "int8 is '1e-1'", "write int8=0.95"),
        ("int8>=0.9", "does not know 'int8>'", "did you mean 'int8'?"),
        ("int8==0.9", "int8 is '=0.9'", "write int8=0.95"),
        ("partitions=one", "partitions is 'one'", "write partitions=1"),
        ("partitions=1.5", "partitions is '1.5'", "write partitions=1"),
        ("size=5mb", "size is '5mb'", "write size=500kB"),
        ("size=-5", "size is '-5'", "write size=500kB"),
        ("tflite-runtime=2.15", "tflite-runtime is '2.15'", "write tflite-runtime=2.14"),
        ("int8=1,int8=0.5", "names int8 twice", "name each key once"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, what: str, fix: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse([text])
    assert what in caught.value.what and caught.value.fix.startswith(fix) and caught.value.exit_code == 2


def test_what_a_format_does_not_have_cannot_be_required() -> None:
    with pytest.raises(RequestError, match=r"opset=21 cannot be checked\n  why: a \.tflite file has no opset"):
        list(unmet(FILE, parse(["opset=21"])))


def test_the_command_ends_with_3_and_names_each(capfd: pytest.CaptureFixture[str], onnx_files: dict[str, Path]) -> None:
    file = onnx_files["net"]
    assert run_cli(capfd, "inspect", file, "--require", "size=1GB", "--require", "opset=30").code == 0
    ran = run_cli(capfd, "inspect", file, "--require", "int8=0.5,size=10", "--require", "opset=5", "--json")
    assert ran.code == 3 and ran.out.startswith("{") and ran.out.endswith("}\n")
    lines = ran.err.splitlines()
    assert lines[0] == "not met: int8=0.5; it is 0" and lines[1].startswith(
        f"not met: size=10; it is {file.stat().st_size:,}"
    )
    assert lines[2].startswith("not met: opset=5; it is ") and len(lines) == 3
    assert run_cli(capfd, "inspect", file, "--require", "partitions=1").code == 2
