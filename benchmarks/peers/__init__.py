"""Other quantizers, each run on our own float file in a Python environment of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import child
from benchmarks.rows import Failure, encode, write_whole

LIMIT_SECONDS = 1200.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A quantizer and one of its recipes."""

    script: str  # beside this file; imports nothing of this repository
    recipe: str
    reads: str  # target whose float file it is given
    summary: str


PEERS = {
    "aeq-static": Peer("aeq.py", "static_wi8_ai8", "tflite-fp32", "ai-edge-quantizer, its static int8 recipe"),
    "aeq-dynamic": Peer("aeq.py", "dynamic_wi8_afp32", "tflite-fp32", "ai-edge-quantizer, its dynamic int8 recipe"),
    "ort-static": Peer("ort.py", "int8", "onnx-fp32", "onnxruntime quantize_static, default settings"),
    "ort-static-uint8": Peer(
        "ort.py", "uint8", "onnx-fp32", "onnxruntime quantize_static, uint8 activations as its manual advises on x86"
    ),
}


@dataclass(frozen=True, slots=True)
class Made:
    """What a peer made of a float file."""

    model: bytes | None
    failure: Failure | None
    version: str
    seconds: float
    cached: bool


def version(name: str, python: str, scratch: Path) -> str:
    """Package and version of a peer in that environment, or what is wrong with it."""
    script = Path(__file__).with_name(PEERS[name].script)
    ended = child.run([python, str(script), "--version"], cwd=scratch, scratch=scratch, limit_seconds=120)
    return ended.out.strip() if ended.code == 0 else f"not installed ({ended.err.strip().splitlines()[-1:]})"


def quantize(name: str, python: str, model: bytes, images: NDArray[np.float32], scratch: Path, cache: Path) -> Made:
    """Let a peer quantize a float file; the same question to the same version is answered from the cache.

    Args:
        name: in PEERS.
        python: interpreter of the environment that has the peer.
        model: float .tflite taking (1, H, W, C), or .onnx taking (1, C, H, W).
        images: calibration images, normalized, (n, C, H, W).
        scratch: existing directory for its files.
        cache: directory that keeps answers between runs.
    """
    peer, found = PEERS[name], version(name, python, scratch)
    script = Path(__file__).with_name(peer.script)
    key = hashlib.sha256(script.read_bytes() + f"{peer.recipe} {found}".encode() + model + images.tobytes()).hexdigest()
    kept_model, kept_note = cache / f"{key}.model", cache / f"{key}.json"
    if kept_note.is_file():
        note = json.loads(kept_note.read_bytes())
        failed = Failure(**note["failure"]) if note["failure"] else None
        return Made(None if failed else kept_model.read_bytes(), failed, found, note["seconds"], cached=True)
    paths = [scratch / "peer_in", scratch / "peer_images.npy", scratch / "peer_out"]
    paths[0].write_bytes(model)
    np.save(paths[1], images)
    paths[2].unlink(missing_ok=True)
    command = [python, str(script), "--model", str(paths[0]), "--images", str(paths[1]), "--recipe", peer.recipe]
    # onnxruntime's quantizer leaves files where it runs when it is killed
    ended = child.run([*command, "--out", str(paths[2])], cwd=scratch, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    failed = child.failure(ended, name)
    if failed is None:
        write_whole(kept_model, paths[2].read_bytes())
    note = {"failure": None if failed is None else {"what": failed.what, "why": failed.why, "fix": failed.fix}}
    write_whole(kept_note, encode(note | {"seconds": ended.seconds}))
    return Made(None if failed else paths[2].read_bytes(), failed, found, ended.seconds, cached=False)
