"""A bundle on disk: read once, verified in memory, and only those bytes are used after.

A model that loads is not proof that it is intact: one zeroed block in a .tflite loads and answers
differently. So nothing reaches a runtime before its size and SHA-256 are those of the manifest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from device_runner import archive, contract
from device_runner.archive import damaged
from device_runner.contract import LABELS_NAME
from device_runner.manifest import MANIFEST_NAME, File, Manifest, dump, parse

RELEASE_NAME, SIGNATURE_NAME = "release.json", "release.json.sig"
RELEASE_FILES = {RELEASE_NAME, SIGNATURE_NAME}
"""Files that a bundle may hold although its manifest does not list them."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, wholly in memory."""

    path: Path
    manifest: Manifest
    files: dict[str, bytes]  # by name, the manifest among them: exactly the bytes that were verified

    @property
    def sha256(self) -> str:
        """Of the manifest, which binds every other file: it names this very bundle."""
        return hashlib.sha256(self.files[MANIFEST_NAME]).hexdigest()

    @property
    def model(self) -> bytes:
        """The model file, for `open_engine`."""
        return self.files[self.manifest.model]


def open_bundle(path: Path | str) -> Bundle:
    """Read and verify a bundle: a directory, or a zip that stores its files uncompressed.

    Raises:
        BundleError: anything missing, extra, damaged, linked, misnamed, too large or contradictory; names the file.
    """
    path = Path(path)
    files = archive.read(path)
    if MANIFEST_NAME not in files:
        raise damaged(f"{path} has no {MANIFEST_NAME}", "a bundle is described by its manifest")
    manifest = _manifest(files[MANIFEST_NAME])
    _check_files(manifest.files, files)
    _check_labels(manifest.labels, files[LABELS_NAME])
    return Bundle(path, manifest, files)


def _manifest(raw: bytes) -> Manifest:
    try:
        content = _strict_json(raw)
        manifest = parse(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise damaged(f"{MANIFEST_NAME} cannot be read", str(error)) from error
    if content != json.loads(dump(manifest)):
        raise damaged(f"{MANIFEST_NAME} is incomplete", "a field is left to its default, which is never written so")
    contract.check(manifest)
    return manifest


def _strict_json(raw: bytes) -> object:
    """Parse, refusing a repeated key: JSON readers disagree on which one counts."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        content: dict[str, object] = {}
        for key, value in pairs:
            if key in content:
                raise ValueError(f"the key {key!r} is there twice")
            content[key] = value
        return content

    return json.loads(raw, object_pairs_hook=unique)


def _check_files(listed: tuple[File, ...], files: dict[str, bytes]) -> None:
    names = {MANIFEST_NAME, *(file.name for file in listed)}
    names |= RELEASE_FILES & files.keys()  # written later, about the manifest; `release.py` verifies them
    for name in sorted(files.keys() ^ names):
        why = "the manifest does not list it" if name in files else "the manifest lists it"
        raise damaged(f"{name} is {'extra' if name in files else 'missing'}", why)
    for file in listed:
        data = files[file.name]
        if len(data) != file.size:
            raise damaged(f"{file.name} has {len(data)} bytes", f"the manifest states {file.size}")
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise damaged(f"{file.name} is not the file that was exported", "its SHA-256 is not the manifest's")


def _check_labels(labels: tuple[str, ...], data: bytes) -> None:
    if data != "".join(f"{label}\n" for label in labels).encode():
        raise damaged(f"{LABELS_NAME} differs from the labels in {MANIFEST_NAME}", "one label per line, in order")
