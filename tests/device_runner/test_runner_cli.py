"""The command line, run as a user runs it, and the package as it is installed."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from runner_bundles import LABELS, make_files, photo, write_directory

from device_runner import __version__, cli, commands
from device_runner.engines.litert import greetings_aside
from device_runner.manifest import dump, parse
from device_runner.postprocess import Answer
from device_runner.text import printable

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "device_runner"
HOSTILE = ("\x1b[2Jred", "a\nb", "\x07bell", "\u202eevil", "\x9b31m", "tab\there", "nul\0", "\ud800", "\x7f", "\u2028")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(photo(i))
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_verify_says_what_the_bundle_is(capsys, bundle_path: Path):
    code, out, err = run(capsys, "verify", bundle_path)
    assert (code, err) == (0, "")
    assert out.startswith("verified tiny: tflite-int8, 5 labels\n  4 files, ")


def test_a_good_run_says_nothing_of_the_runtime_on_stderr(bundle_path: Path, images: Path):
    """LiteRT greets from C++, so only another process shows what a user sees."""
    command = [sys.executable, "-m", "device_runner", "classify", str(bundle_path), str(images)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr.startswith("selftest ok") and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_runtime_warns_of_is_let_through(capfd: pytest.CaptureFixture[str], fails: bool):
    with pytest.raises(ValueError) if fails else contextlib.nullcontext(), greetings_aside():
        os.write(2, b"INFO: Created a delegate\nWARNING: slow\nERROR: INFO: is missing\nhalf a line")
        if fails:
            raise ValueError
    assert capfd.readouterr().err == "WARNING: slow\nERROR: INFO: is missing\nhalf a line"


@pytest.mark.parametrize("command", ["verify", "selftest", "classify"])
def test_a_damaged_bundle_is_three_lines_on_stderr_and_exit_1(command: str, capsys, bundle_path: Path, images: Path):
    with (bundle_path / "model.tflite").open("r+b") as model:
        model.seek(100)
        model.write(b"\xff")
    arguments = [command, bundle_path, images] if command == "classify" else [command, bundle_path]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    what, why, fix = err.splitlines()
    assert what == "error: model.tflite is not the file that was exported"
    assert why.startswith("  why: ") and fix.startswith("  fix: ")


def test_selftest_reports_on_stdout(capsys, bundle_path: Path):
    code, out, _ = run(capsys, "selftest", bundle_path, "--threads", 2)
    assert code == 0 and out.startswith("selftest ok: 4 golden images on litert 2.")


def test_classify_prints_answers_on_stdout_and_the_selftest_on_stderr(capsys, bundle_path: Path, images: Path):
    code, out, err = run(capsys, "classify", bundle_path, images)
    assert code == 0 and "selftest ok" in err
    lines = out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(images / f"{i}.jpg") for i in range(3)]
    assert all(sum(label in line for label in LABELS) == 3 for line in lines)


def test_classify_as_json(capsys, bundle_path: Path, images: Path):
    code, out, err = run(capsys, "classify", bundle_path, images, "--json", "--top", 2, "--no-selftest")
    assert code == 0 and "selftest" not in err
    for i, record in enumerate(map(json.loads, out.splitlines())):
        assert list(record) == ["schema", "image", "top", "review", "ms"]
        assert record["schema"] == 1 and record["image"] == str(images / f"{i}.jpg") and record["ms"] > 0
        assert [list(answer) for answer in record["top"]] == [["label", "index", "confidence"]] * 2
        best, second = record["top"]
        assert 1 >= best["confidence"] >= second["confidence"] >= 0 and best["label"] == LABELS[best["index"]]
        assert record["review"] == (best["confidence"] < 0.6)


@pytest.mark.parametrize(("threshold", "marked"), [(0, False), (1, True)])
def test_review_below_a_threshold(threshold: int, marked: bool, capsys, bundle_path: Path, images: Path):
    arguments = ("classify", bundle_path, images / "0.jpg", "--review-below", threshold)
    assert json.loads(run(capsys, *arguments, "--json")[1])["review"] is marked
    assert (": review: " in run(capsys, *arguments)[1]) is marked


def test_what_holds_unless_told():
    parsed = cli.build_parser().parse_args(["classify", "bundle", "image"])
    assert (parsed.top, parsed.review_below, parsed.threads, parsed.engine) == (3, 0.6, 1, None)
    assert not parsed.json and not parsed.no_selftest


def test_a_bad_image_is_reported_and_the_run_goes_on(capsys, bundle_path: Path, images: Path):
    (images / "1.jpg").write_bytes(photo(1)[:-300])
    code, out, err = run(capsys, "classify", bundle_path, images, images / "none.jpg", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and [("error" in r) for r in records] == [False, True, False, True]
    assert records[1]["error"]["what"] == "the image cannot be decoded" and records[1]["image"].endswith("1.jpg")
    code, out, err = run(capsys, "classify", bundle_path, images)
    assert code == 1 and len(out.splitlines()) == 2
    assert f"error: {images / '1.jpg'}: the image cannot be decoded\n  why: " in err


def test_what_is_no_image_file_is_reported(capsys, bundle_path: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    os.truncate(os.open(tmp_path / "huge.bmp", os.O_CREAT | os.O_RDWR), 1 << 40)
    paths = [tmp_path / name for name in ("empty", "pipe.jpg", "huge.bmp")]
    code, out, err = run(capsys, "classify", bundle_path, *paths)
    assert (code, out) == (1, "")
    for words in ("the folder holds no images", "there is no such image file", "the file is too large"):
        assert words in err


def test_an_engine_can_be_named(capsys, bundle_path: Path):
    assert run(capsys, "selftest", bundle_path, "--engine", "litert")[0] == 0
    code, _, err = run(capsys, "selftest", bundle_path, "--engine", "onnxruntime")
    assert code == 1 and "error: 'onnxruntime' cannot run tflite models" in err


@pytest.mark.parametrize("wrong", [["--top", "0"], ["--review-below", "2"], ["--threads", "x"], ["--tpo", "3"]])
def test_wrong_usage_is_exit_2(wrong: list[str], capsys, bundle_path: Path, images: Path):
    with pytest.raises(SystemExit) as caught:
        cli.main(["classify", str(bundle_path), str(images), *wrong])
    assert caught.value.code == 2


# Hostile names.


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_printed_can_drive_a_terminal(text: str):
    assert printable(text).isprintable() and printable(text) != text
    seen = commands.Seen(Path(text.replace("\0", "")), [Answer(text, 0, 0.5)], True, 1.0)
    assert seen.line()[:-1].isprintable() and seen.line().endswith("\n")
    assert json.loads(seen.record())["top"][0]["label"] == text
    assert seen.record().count("\n") == 1 and seen.record().isascii()


def test_ordinary_names_stay_as_they_are():
    for text in ("Katze", "émigré", "猫", "🐱", 'it\'s a "cat"'):
        assert printable(text) == text


def test_a_hostile_label_goes_through_the_whole_command(capsys, tmp_path: Path, images: Path):
    files = make_files("tflite-int8")
    labels = tuple(f"\x1b[31m{label}" for label in LABELS)
    text = "".join(f"{label}\n" for label in labels).encode()
    manifest = parse(files["manifest.json"])
    entries = tuple(
        msgspec.structs.replace(f, size=len(text), sha256=sha256(text)) if f.name == "labels.txt" else f
        for f in manifest.files
    )
    manifest = msgspec.structs.replace(manifest, labels=labels, files=entries, name="\x1b]0;owned\x07")
    bundle = write_directory(tmp_path / "b", {**files, "labels.txt": text, "manifest.json": dump(manifest)})
    for arguments in (("classify", bundle, images), ("verify", bundle), ("selftest", bundle)):
        code, out, err = run(capsys, *arguments)
        assert code == 0 and "\x1b" not in out + err and "\x07" not in out + err


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


# The process and the package.


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "device_runner", *map(str, arguments)]


def test_a_reader_that_leaves_is_no_traceback(bundle_path: Path, images: Path):
    script = 'exec 2>"$1"; shift; "$@" | true; exit "${PIPESTATUS[0]}"'
    err = images / "err.txt"
    arguments = command("classify", bundle_path, *[images] * 50, "--json", "--no-selftest")
    result = subprocess.run(["bash", "-c", script, "bash", err, *arguments], cwd=ROOT, timeout=60)
    assert result.returncode == 1
    assert "Traceback" not in err.read_text() and "BrokenPipe" not in err.read_text()


def test_output_survives_a_terminal_without_unicode(tmp_path: Path, bundle_path: Path):
    path = tmp_path / "猫.jpg"
    path.write_bytes(photo(0))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command("classify", bundle_path, path), cwd=ROOT, env=environment, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert b"\\u732b.jpg: " in result.stdout


def test_help_loads_neither_numpy_nor_pillow():
    code = "import sys; from device_runner import cli; cli.build_parser().format_help(); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "PIL", "msgspec", "ai_edge_litert", "onnxruntime"} & set(result.stdout.split())


def test_the_runner_imports_nothing_but_what_it_declares():
    """No shrink, no torch; and the runtimes only in their own files."""
    runtimes = {"ai_edge_litert", "tflite_runtime", "onnxruntime"}
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "." for n in nodes if isinstance(n, ast.ImportFrom)}
        outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names
        allowed = {"device_runner", "numpy", "PIL", "msgspec"}
        allowed |= runtimes if path.parent.name == "engines" and path.stem in cli_engines() else set()
        assert outside <= allowed, path


def cli_engines() -> set[str]:
    from device_runner.engines import ENGINES

    return set(ENGINES)


def test_serving_an_image_loads_no_training_framework(bundle_path: Path, images: Path):
    code = (
        "import sys; from device_runner import cli; "
        f"cli.main(['classify', {str(bundle_path)!r}, {str(images)!r}]); print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "shrink", "tensorflow", "onnxruntime", "scipy"} & set(result.stderr.split())


def test_packaging_lists_every_package_and_the_version():
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    assert listed == {"device_runner", *(f"device_runner.{p.parent.name}" for p in PACKAGE.glob("*/__init__.py"))}
    assert project["project"]["scripts"] == {"device_runner": "device_runner.cli:main"}
    assert __version__


def test_the_readme_knows_every_command_and_option():
    readme = (PACKAGE / "README.md").read_text()
    options = {"--top", "--json", "--review-below", "--engine", "--threads", "--no-selftest"}
    assert options == {o for o in re.findall(r"--[a-z-]+", classify_help()) if o != "--help"}
    for words in (*options, "device_runner verify ", "device_runner selftest ", "device_runner classify "):
        assert words in readme


def classify_help() -> str:
    return subprocess.run(command("classify", "--help"), cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_readme_shows_what_the_commands_print(capsys, bundle_path: Path, images: Path):
    """Line by line, but for the numbers, the labels and the paths, which are those of the reader's bundle."""
    readme = shape((PACKAGE / "README.md").read_text())
    printed = run(capsys, "verify", bundle_path)[1] + run(capsys, "selftest", bundle_path)[1]
    printed += run(capsys, "classify", bundle_path, images / "0.jpg", "--json", "--top", 1)[1]
    for line in printed.splitlines():
        assert shape(line) in readme


def shape(text: str) -> str:
    """The text with everything that depends on the bundle made equal."""
    text = re.sub(r'"image": "[^"]*"|"label": "[^"]*"', "NAME", text)
    text = re.sub(r"sha256 \w+|true|false|verified [^:]+: [\w-]+", "VALUE", text)
    return re.sub(r"\d[\d.e-]*", "N", text)
