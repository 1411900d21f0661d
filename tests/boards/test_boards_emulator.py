"""Emulated processors: which, how they are told apart, and what their counts and answers are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from needed import needs
from run_cli import run_cli

from shrink.bench import result
from shrink.boards import counting, emulator
from shrink.boards.counting import CLASSES, read_counts
from shrink.boards.emulator import CPUS, FEATURES, cpuinfo
from shrink.errors import StageError

PLUGIN = Path(emulator.__file__).with_name("plugin") / "count.c"
WORDS = {  # as the Arm Architecture Reference Manual encodes them
    0x8B020020: "int",  # add x0, x1, x2
    0xD2800020: "int",  # mov x0, #1
    0x14000000: "branch",  # b
    0xD4000001: "branch",  # svc: exceptions are encoded with the branches
    0xF9400020: "load",  # ldr x0, [x1]
    0x58000000: "load",  # ldr x0, here
    0xF9000020: "store",  # str x0, [x1]
    0xA9000440: "store",  # stp x0, x1, [x2]
    0x3DC00020: "vector load",  # ldr q0, [x1]
    0xAD400440: "vector load",  # ldp q0, q1, [x2]
    0x4C407800: "vector load",  # ld1 {v0.4s}, [x0]
    0x3D800020: "vector store",  # str q0, [x1]
    0x4C007800: "vector store",  # st1 {v0.4s}, [x0]
    0x4E22CC20: "fma",  # fmla v0.4s, v1.4s, v2.4s
    0x4F821020: "fma",  # fmla v0.4s, v1.4s, v2.s[0]
    0x1F020C20: "fma",  # fmadd s0, s1, s2, s3
    0x4E829420: "dot",  # sdot v0.4s, v1.16b, v2.16b
    0x6E829420: "dot",  # udot v0.4s, v1.16b, v2.16b
    0x4F82E020: "dot",  # sdot v0.4s, v1.16b, v2.4b[0]
    0x4E82A420: "matrix",  # smmla v0.4s, v1.16b, v2.16b
    0x0E628020: "widening multiply",  # smlal v0.4s, v1.4h, v2.4h
    0x0E22C020: "widening multiply",  # smull v0.8h, v1.8b, v2.8b
    0x0F422020: "widening multiply",  # smlal v0.4s, v1.4h, v2.h[0]
    0x4EA28420: "simd",  # add v0.4s, v1.4s, v2.4s
    0x4E22D420: "simd",  # fadd v0.4s, v1.4s, v2.4s
    0x04A00000: "sve",  # add z0.s, z0.s, z0.s
}


def test_every_processor_says_its_part_and_features() -> None:
    assert CPUS.keys() == FEATURES.keys()
    for cpu, part in CPUS.items():
        text = cpuinfo(cpu)
        assert text.count(f"CPU part\t: {part}\n") == 4 and FEATURES[cpu] in text
    assert "asimddp" not in FEATURES["cortex-a72"] and "asimddp" in FEATURES["cortex-a76"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_plugin_sorts_instructions_as_the_manual_encodes_them(tmp_path: Path) -> None:
    cases = "".join(f'printf("%d\\n", class_of({word:#x}u));' for word in WORDS)
    main = tmp_path / "main.c"
    main.write_text(f'#include "{PLUGIN}"\nint main(void) {{ {cases} return 0; }}\n')
    words = ["cc", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "main"), str(main), str(tmp_path / "qemu.c")]
    names = re.findall(r"\bqemu_plugin_(?:register|tb|insn)\w+(?=\()", PLUGIN.read_text())
    (tmp_path / "qemu.c").write_text("".join(f"void {name}(void) {{}}\n" for name in sorted(set(names))))
    subprocess.run(words, check=True)
    said = subprocess.run([str(tmp_path / "main")], check=True, capture_output=True, text=True).stdout.split()
    assert [CLASSES[int(number)] for number in said] == list(WORDS.values())


def test_counts_are_read_by_part_and_class() -> None:
    line = "{} 1 2 3 4 5 6 7 8 9 10 11 12 {}\n"
    found = read_counts("".join(line.format(k, last) for last in (0, 22) for k in (0, 1, 2)), "cortex-a72")
    invoke = found.regions["invoke"]
    assert invoke.totals == (78, 100) and sum(invoke.classes.values()) == 100
    assert invoke.classes["dot"] == 8 and found.cpu == "cortex-a72"


@pytest.mark.parametrize("text", ["", "0 1 2\n", "0" + " 1" * 13 + "\n", "nonsense\n"])
def test_lines_that_are_no_counts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_counts(text, "cortex-a72")


@pytest.mark.parametrize(("kind", "cpu"), [("tflite", "cortex-a72"), ("onnx", "cortex-a76")])
def test_an_emulated_arm_gives_the_answers_of_this_machine_and_no_time(
    capfd: pytest.CaptureFixture[str], bundles: dict[str, Path], photos: Path, tmp_path: Path, cpu: str, kind: str
) -> None:
    needs("emulator")
    found = {}
    for url in ("local", f"qemu:{cpu}"):
        out = tmp_path / f"{url[:5]}.json"
        words = (bundles[f"{kind}-int8"], "--against", bundles[f"{kind}-float32"], "--data", photos, "--repeats", 0)
        ran = run_cli(capfd, "bench", *words, "--on", url, "--json", out)
        assert ran.code == 0, ran.err
        found[url[:5]] = result.parse(out.read_bytes())
    here, there = found["local"], found["qemu:"]
    assert here.candidate and here.against and there.candidate and there.against and there.facts
    assert there.facts.machine == "aarch64" and there.facts.cpu_parts == (CPUS[cpu],)
    assert there.candidate.outputs_sha256 == here.candidate.outputs_sha256
    for mine, other in zip(here.against.scores, there.against.scores, strict=True):
        assert dict(other) == pytest.approx(dict(mine), abs=5e-5)
    assert there.verdict == "functional-only" and there.place.emulated
    for side in (there.candidate, there.against):
        assert side.times is None and side.samples_ms == () and side.stages_ms == {}
        assert side.load_ms is side.first_ms is side.memory_mb is side.peak_mb is None
        assert side.instructions and set(side.instructions.regions) == {"preprocess", "invoke", "postprocess"}
    assert " ms" not in ran.out


def test_counts_of_two_runs_are_equal_to_the_last_digit(bundles: dict[str, Path], tmp_path: Path) -> None:
    needs("emulator")
    board, runner, bundle = counted_board(bundles["tflite-int8"], tmp_path)
    first, second = (counting.count(board, runner, bundle, tmp_path / name) for name in ("first", "second"))
    assert first == second
    assert first.regions["invoke"].classes["int"] > 1000


def test_a_bundle_that_cannot_be_loaded_is_said_not_counted_as_nothing(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    needs("emulator")
    board, runner, _ = counted_board(bundles["tflite-int8"], tmp_path)
    with pytest.raises(StageError, match="could not count instructions"):
        counting.count(board, runner, tmp_path / "absent", tmp_path / "counts")


def counted_board(bundle: Path, folder: Path) -> tuple[emulator.Board, Path, Path]:
    """The emulated board, and the zips of the runner and of the bundle."""
    import os

    from device_runner.bundle import open_bundle
    from shrink.boards.packing import pack, runner_files
    from shrink.boards.places import places

    board = emulator.emulated("qemu:cortex-a76", places(os.environ))
    return board, folder / pack(runner_files(), folder), folder / pack(open_bundle(bundle).files, folder)
