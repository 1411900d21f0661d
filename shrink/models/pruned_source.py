"""A pruned or tuned model: a directory that `shrink prune` or `shrink tune` wrote, read without the original's code.

Nothing in it is run but ATen ops from a list (see `shrink.graph.store`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
from safetensors import SafetensorError

from device_runner.manifest import Preprocess
from shrink.errors import ModelError
from shrink.graph import store
from shrink.models.spec import Spec
from shrink.models.zoo import Built

GRAPH, WEIGHTS, ABOUT = "graph.json", "weights.safetensors", "model.json"
FILES = (GRAPH, WEIGHTS, ABOUT)
FORMAT = 1
DIGEST = 8


class About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a pruned model beside its graph."""

    format: int = FORMAT
    spec: str  # the model it was made of
    weights: str  # where that model's weights came from
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    graph_sha256: str
    weights_sha256: str
    about_sha256: str = ""  # of all the other fields
    plan: dict[str, Any]  # what was pruned, for people
    changes: tuple[str, ...]
    judged: dict[str, float]  # top-1 before and after, agreement, and on how many images
    trained_on: bytes = b""  # beginnings of hashes of images, `DIGEST` bytes each: they are never evaluated again


def write(folder: Path, graph: bytes, weights: bytes, about: About) -> None:
    """Put the three files into a directory."""
    digests = {"graph_sha256": sha256(graph), "weights_sha256": sha256(weights)}
    complete = msgspec.structs.replace(about, **digests)
    complete = msgspec.structs.replace(complete, about_sha256=_own_sha256(complete))
    (folder / GRAPH).write_bytes(graph)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(complete)) + b"\n")


def pruned(spec: Spec) -> Built:
    """`pruned:DIR` and `tuned:DIR`."""
    if spec.arguments:
        raise ModelError(
            f"{spec.text} has arguments", "the model is as it was written", f"write {spec.source}:{spec.name}"
        )
    data = {name: _read(Path(spec.name), name) for name in FILES}
    try:
        about = msgspec.json.decode(data[ABOUT], type=About)
        tensors = safetensors.torch.load(data[WEIGHTS])
    except (msgspec.DecodeError, SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{spec.text} is damaged", str(error), AGAIN) from error
    if about.format != FORMAT:
        why = f"it has format {about.format}, and this version reads {FORMAT}"
        raise ModelError(f"{spec.text} cannot be read", why, "use the version of shrink that wrote it")
    if about.about_sha256 != _own_sha256(about):
        raise ModelError(f"{spec.text} is damaged", f"{ABOUT} is not as it was written", AGAIN)
    for name, wanted in ((GRAPH, about.graph_sha256), (WEIGHTS, about.weights_sha256)):
        if sha256(data[name]) != wanted:
            raise ModelError(f"{spec.text} is damaged", f"{name} is not the file that was written with it", AGAIN)
    module = store.load(data[GRAPH], tensors)
    trained_on = frozenset(about.trained_on[i : i + DIGEST] for i in range(0, len(about.trained_on), DIGEST))
    return Built(module, about.weights, lambda: about.preprocess, about.labels, trained_on)


AGAIN = "copy the directory again, or make the model anew"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _own_sha256(about: About) -> str:
    read = msgspec.json.decode(msgspec.json.encode(about), type=About)  # as a reader has it: 1 may be 1.0
    return sha256(msgspec.json.encode(msgspec.structs.replace(read, about_sha256="")))


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        why = f"{name}: {error.strerror}"
        raise ModelError(
            f"{folder} is not a pruned or tuned model",
            why,
            "give one that `shrink prune` or `shrink tune` wrote",
        ) from error
