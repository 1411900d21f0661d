"""Only an intact bundle opens. Every other one is refused, with three lines that name the file."""

from __future__ import annotations

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from runner_bundles import KINDS, LABELS, listing, photo, write_directory, write_zip

from device_runner import archive
from device_runner.bundle import open_bundle
from device_runner.classify import Classifier
from device_runner.errors import BundleError, Problem
from device_runner.manifest import Manifest, dump, parse
from device_runner.selftest import selftest

Files = dict[str, bytes]


def refusal(path: Path) -> str:
    """The message with which a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and lines[1].startswith("  why: ") and lines[2].startswith("  fix: "), lines
    return str(caught.value)


def with_manifest(files: Files, change: Callable[[dict[str, Any]], None]) -> Files:
    """The files with a manifest whose JSON was edited."""
    content = json.loads(files["manifest.json"])
    change(content)
    return {**files, "manifest.json": json.dumps(content).encode()}


def relisted(files: Files) -> Files:
    """The files with a manifest that vouches for them, whatever they are."""
    others = {n: d for n, d in files.items() if n != "manifest.json"}
    manifest = msgspec.structs.replace(parse(files["manifest.json"]), files=listing(others))
    return {**others, "manifest.json": dump(manifest)}


def test_an_intact_bundle_opens_as_directory_and_as_zip(tmp_path: Path, any_files: Files):
    folder = open_bundle(write_directory(tmp_path / "b", any_files))
    packed = open_bundle(write_zip(tmp_path / "b.zip", any_files))
    assert folder.files == packed.files == any_files
    assert folder.manifest == packed.manifest == parse(any_files["manifest.json"])
    assert folder.model in any_files.values()


def test_a_link_to_a_bundle_is_followed_but_never_one_inside(bundle_path: Path, tmp_path: Path):
    (tmp_path / "current").symlink_to(bundle_path)
    assert open_bundle(tmp_path / "current").manifest.labels == LABELS
    (tmp_path / "elsewhere").write_bytes((bundle_path / "labels.txt").read_bytes())
    (bundle_path / "labels.txt").unlink()
    (bundle_path / "labels.txt").symlink_to(tmp_path / "elsewhere")
    assert "labels.txt cannot be opened as a plain file" in refusal(bundle_path)


def test_the_bytes_that_were_verified_are_those_that_run(bundle_path: Path, all_files: dict[str, Files]):
    classifier = Classifier.open(bundle_path)
    before = classifier.classify(photo(5), 5)
    shutil.rmtree(bundle_path)
    assert classifier.classify(photo(5), 5) == before


# Damage: 4 kinds of bundle, each file, bit flips, truncations, zeroed blocks.


def damages(data: bytes, rng: np.random.Generator, n: int) -> list[bytes]:
    """n of each damage; a damage that changes nothing is left out."""
    made = []
    for at in rng.integers(0, len(data), n):
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        zeroed = bytearray(data)
        zeroed[at : at + 512] = bytes(len(data[at : at + 512]))
        made += [bytes(flipped), bytes(zeroed), data[:at]]
    return [bad for bad in made if bad != data]


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_file_is_loaded(kind: str, all_files: dict[str, Files], tmp_path: Path):
    files, refused = all_files[kind], 0
    folder = write_directory(tmp_path / "b", files)
    for name in sorted(files.keys() - {"manifest.json"}):
        for bad in damages(files[name], np.random.default_rng(1), 20):
            (folder / name).write_bytes(bad)
            assert name in refusal(folder)
            refused += 1
        (folder / name).write_bytes(files[name])
    assert refused > 150
    open_bundle(folder)  # whole again: it was the damage that was refused


def test_a_damaged_manifest_is_refused_fails_the_selftest_or_describes_the_same_model(tmp_path: Path, files: Files):
    """No hash binds the manifest itself. What a flip in it may change unnoticed is what the device does not
    compute with: names, measured figures, and the output's scale, which moves no answer to another class."""
    good = parse(files["manifest.json"])
    folder = write_directory(tmp_path / "b", files)
    unnoticed = 0
    for bad in damages(files["manifest.json"], np.random.default_rng(2), 150):
        (folder / "manifest.json").write_bytes(bad)
        try:
            classifier = Classifier.open(folder)
            selftest(classifier.bundle, classifier.engine)
        except Problem as problem:
            assert len(str(problem).splitlines()) == 3
            continue
        unnoticed += 1
        m = classifier.bundle.manifest
        assert (m.files, m.labels, m.model, m.preprocess) == (good.files, good.labels, good.model, good.preprocess)
        assert msgspec.structs.replace(m.input, name="") == msgspec.structs.replace(good.input, name="")
    assert unnoticed < 60


def test_a_damaged_zip_is_refused_or_gives_the_same_files(tmp_path: Path, files: Files):
    """A flip in a date of the zip changes no file; any other is noticed."""
    good = write_zip(tmp_path / "good.zip", files).read_bytes()
    path, refused = tmp_path / "bad.zip", 0
    rng = np.random.default_rng(4)
    tail = [good[:-400] + bad for bad in damages(good[-400:], rng, 60)]  # the directory of the zip
    for bad in damages(good, rng, 40) + tail:
        path.write_bytes(bad)
        try:
            opened = open_bundle(path).files
        except BundleError as error:
            assert len(str(error).splitlines()) == 3
            refused += 1
        else:
            assert {n: d for n, d in opened.items() if n != "manifest.json"} == {
                n: d for n, d in files.items() if n != "manifest.json"
            }
    assert refused > 200


# Structure.


def test_a_missing_and_an_extra_file_are_named(tmp_path: Path, files: Files):
    for name in files:
        lacking = {n: d for n, d in files.items() if n != name}
        assert name in refusal(write_directory(tmp_path / f"without-{name}", lacking))
    for name in ("evil.so", ".hidden", "Model.tflite", "a b", "manifest.json~", "ünicode", "x" * 65):
        assert name.encode("unicode_escape").decode() in refusal(
            write_directory(tmp_path / f"with-{name}", {**files, name: b""})
        ).replace("ü", "\\xfc")


def test_only_regular_files_are_read(bundle_path: Path):
    model = bundle_path / "model.tflite"
    for make in (model.mkdir, lambda: os.mkfifo(model), lambda: model.symlink_to("/dev/zero")):
        shutil.rmtree(model) if model.is_dir() else model.unlink()
        make()
        assert "model.tflite" in refusal(bundle_path)


def test_too_large_and_too_many_files_are_not_read(bundle_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.truncate(bundle_path / "model.tflite", 1 << 40)  # sparse: a terabyte that takes no room
    assert f"model.tflite is too large: {1 << 40} bytes" in refusal(bundle_path)
    for i in range(archive.MAX_FILES):
        (bundle_path / f"f{i}").touch()
    assert "at most 64" in refusal(bundle_path)


def test_a_file_that_grows_while_it_is_read_is_refused(bundle_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.fstat

    def smaller(handle: int) -> os.stat_result:
        status = list(real(handle))
        status[stat.ST_SIZE] -= 1
        return os.stat_result(status)

    monkeypatch.setattr("device_runner.archive.os.fstat", smaller)
    assert "grew while it was read" in refusal(bundle_path)


def test_a_path_without_a_bundle(tmp_path: Path):
    assert "there is no bundle at" in refusal(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    assert "is not a sound zip" in refusal(tmp_path / "text")
    (tmp_path / "empty").mkdir()
    assert "has no manifest.json" in refusal(tmp_path / "empty")


# Hostile zips.

HOSTILE_NAMES = (
    "../model.tflite",
    "/etc/passwd",
    "a/b",
    "..",
    "a\\b",
    "C:x",
    "MODEL.TFLITE",
    "model.tflite\0x",
    "",
    "dir/",
)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path, files: Files):
    path = write_zip(tmp_path / "b.zip", files)
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name  # zipfile would clean it up if it went through the constructor
    with zipfile.ZipFile(path, "a") as zipped:
        zipped.writestr(entry, b"")
    assert "is not a flat file name" in refusal(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zip"]  # nothing was written


def test_a_file_twice_in_a_zip_is_refused(tmp_path: Path, files: Files):
    path = write_zip(tmp_path / "b.zip", files)
    with zipfile.ZipFile(path, "a") as zipped, pytest.warns(UserWarning, match="Duplicate name"):
        zipped.writestr("model.tflite", files["model.tflite"])
    assert "model.tflite is in the bundle twice" in refusal(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_zip_is_refused(method: int, tmp_path: Path, files: Files):
    assert "is compressed in the zip" in refusal(write_zip(tmp_path / "b.zip", files, method))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_entry_that_is_no_file_is_refused(kind: int, tmp_path: Path, files: Files):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = ((kind if name == "labels.txt" else stat.S_IFREG) | 0o777) << 16
            zipped.writestr(entry, data)
    assert "labels.txt is not a regular file" in refusal(path)


def patched(data: bytes, at: int, value: int, size: int) -> bytes:
    """The bytes with a little-endian number written into them."""
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def test_a_size_or_method_that_lies_is_refused(tmp_path: Path, files: Files):
    """What the zip's directory says of its first file: method, packed size and real size."""
    path = write_zip(tmp_path / "b.zip", files)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as zipped:
        method, packed, real = (zipped.start_dir + offset for offset in (10, 20, 24))
    for lie in (patched(data, method, 8, 2), patched(data, packed, 1, 4), patched(data, real, 1 << 31, 4)):
        path.write_bytes(lie)
        assert "is compressed in the zip" in refusal(path)
    path.write_bytes(patched(patched(data, packed, 1 << 31, 4), real, 1 << 31, 4))
    assert "entries of the zip overlap" in refusal(path)


def test_zip_entries_that_share_their_bytes_are_refused(tmp_path: Path):
    """A file inside another's bytes: many such nested files would be read out larger than the zip."""
    inner, path = tmp_path / "inner.zip", tmp_path / "b.zip"
    write_zip(inner, {"inside": bytes(5000)})
    with zipfile.ZipFile(inner) as zipped:
        inside = zipped.infolist()[0]
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("outside", inner.read_bytes())
        inside.header_offset = 30 + len("outside")  # behind the header of the outer file
        zipped.filelist.append(inside)
    with zipfile.ZipFile(path) as zipped:
        assert zipped.read("inside") == bytes(5000)  # the zip does what this test means
    assert "entries of the zip overlap" in refusal(path)


# A manifest that lies.


def edit(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """An edit of one value deep in the manifest."""

    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return change


LIES = {
    "schema of the future": (edit("schema", value=2), "schema"),
    "unknown field": (edit("input", "gamma", value=1), "gamma"),
    "missing preprocess field": (lambda m: m["preprocess"].pop("exif"), "exif"),
    "missing field with a default": (lambda m: m.pop("schema"), "incomplete"),
    "null zero point": (edit("input", "zero_point", value=None), "input.zero_point is None"),
    "wrong type": (edit("preprocess", "exif", value="yes"), "exif"),
    "unknown filter": (edit("preprocess", "filter", value="cubic"), "filter"),
    "crop is not the input": (edit("preprocess", "crop", value=[12, 15]), "input.shape is"),
    "shorter with two sizes": (edit("preprocess", "size", value=[18, 19]), "takes one number twice"),
    "shorter without crop": (edit("preprocess", "crop", value=None), "preprocess"),
    "two means": (edit("preprocess", "mean", value=[0, 0]), "mean has 2 values for 3 channels"),
    "std of zero": (edit("preprocess", "std", value=[1, 0, 1]), "must be above 0"),
    "grey for a colour model": (edit("preprocess", "color", value="L"), "input.shape is"),
    "layout of another shape": (edit("input", "layout", value="NCHW"), "input.shape is"),
    "float with a scale": (edit("input", "dtype", value="float32"), "is float32 but has a scale"),
    "negative scale": (edit("output", "scale", value=-0.1), "output.scale is -0.1"),
    "negative spread": (edit("output", "kernel_spread", value=-0.1), "output.kernel_spread"),
    "int8 without scale": (edit("output", "scale", value=None), "output.scale is None"),
    "zero point of another dtype": (edit("output", "zero_point", value=200), "int8 needs one in -128..127"),
    "pixels on another scale": (edit("input", "values", value="pixels"), "pixels have (1.0, -128)"),
    "no word on the values": (lambda m: m["input"].pop("values"), "incomplete"),
    "labels in another order": (edit("labels", value=[*LABELS[1:], LABELS[0]]), "labels.txt differs"),
    "a label too few": (edit("labels", value=LABELS[1:]), "for 4 labels"),
    "a batch of two": (edit("input", "shape", value=[2, 12, 16, 3]), "input.shape is"),
    "another model file": (edit("model", value="labels.tflite"), "does not list 'labels.tflite'"),
    "model outside": (edit("model", value="../model.tflite"), "does not list '../model.tflite'"),
    "file outside": (edit("files", 0, "name", value="../x"), "'../x', not a flat file name"),
    "itself": (edit("files", 0, "name", value="manifest.json"), "'manifest.json', not a flat file name"),
    "size": (edit("files", 0, "size", value=1), "model.tflite has"),
    "sha256": (edit("files", 0, "sha256", value="0" * 64), "model.tflite is not the file that was exported"),
    "sha256 of another form": (edit("files", 0, "sha256", value="0" * 63), "sha256"),
    "file twice": (lambda m: m["files"].append(m["files"][0]), "names a file twice"),
    "file that is not there": (lambda m: m["files"].append({**m["files"][0], "name": "more"}), "more is missing"),
    "no golden": (lambda m: m["files"].pop(2), "does not list 'golden.npz'"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_manifest_that_lies_is_refused(name: str, tmp_path: Path, files: Files):
    change, words = LIES[name]
    assert words in refusal(write_directory(tmp_path / "b", with_manifest(files, change)))


def test_a_key_twice_in_the_manifest_is_refused(tmp_path: Path, files: Files):
    twice = files["manifest.json"].replace(b'"exif": true', b'"exif": true, "exif": false')
    path = write_directory(tmp_path / "b", {**files, "manifest.json": twice})
    assert "the key 'exif' is there twice" in refusal(path)


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe{}", b"[" * 100_000, b"null", b'{"a":1e999}', b"{}"])
def test_what_is_no_manifest_is_refused(raw: bytes, tmp_path: Path, files: Files):
    assert "manifest.json" in refusal(write_directory(tmp_path / "b", {**files, "manifest.json": raw}))


def test_a_manifest_survives_writing_and_reading(any_files: Files):
    manifest = parse(any_files["manifest.json"])
    assert isinstance(manifest, Manifest) and dump(manifest) == any_files["manifest.json"]


def test_labels_must_be_those_of_the_manifest_even_if_their_hash_is_right(tmp_path: Path, files: Files):
    for i, text in enumerate((b"", b"cat\ndog\nbird\nfish\nboat", b"cat\r\ndog\r\nbird\r\nfish\r\nboat\r\n")):
        path = write_directory(tmp_path / str(i), relisted({**files, "labels.txt": text}))
        assert "labels.txt differs" in refusal(path)
