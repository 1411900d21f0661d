"""Weights are read, code is not run, and a mismatch is told by its keys."""

from __future__ import annotations

import argparse
import collections
import hashlib
import io
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from shrink.errors import CheckpointError
from shrink.models.checkpoint import apply, read_state_dict

STATE = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.zeros(2)}


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def saved(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def assert_state(state: dict[str, Tensor]) -> None:
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_the_formats(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "a.safetensors")
    os.link(tmp_path / "a.safetensors", tmp_path / "b.bin")  # told by its content
    saved(tmp_path / "c.pt", STATE)
    saved(tmp_path / "d.pth", STATE, _use_new_zipfile_serialization=False)
    for path in sorted(tmp_path.iterdir()):
        state, digest = read_state_dict(path)
        assert_state(state)
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "state_dict_ema"])
def test_a_training_checkpoint_is_unwrapped(tmp_path: Path, key: str) -> None:
    content = {"epoch": 3, "optimizer": {"lr": 0.1}, key: collections.OrderedDict(STATE)}
    assert_state(read_state_dict(saved(tmp_path / "a.pt", content))[0])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + key: tensor for key, tensor in STATE.items()}
    assert_state(read_state_dict(saved(tmp_path / "a.pt", wrapped))[0])


def test_a_prefix_of_some_keys_is_part_of_the_name(tmp_path: Path) -> None:
    state = {"module.weight": torch.zeros(1), "head.weight": torch.zeros(1)}
    assert read_state_dict(saved(tmp_path / "a.pt", state))[0].keys() == state.keys()


def malicious(tmp_path: Path, canary: Path) -> dict[str, Path]:
    """Files that create `canary` when they are unpickled carelessly."""
    touch = f"touch {canary}"
    contents: dict[str, object] = {
        "os.system": Runs(os.system, touch),
        "eval": Runs(eval, f"open({str(canary)!r}, 'w')"),
        "exec": Runs(exec, f"open({str(canary)!r}, 'w')"),
        "subprocess": Runs(subprocess.check_output, ["touch", str(canary)]),
        "in a state dict": STATE | {"1.weight": Runs(os.system, touch)},
        "in the optimizer": {"state_dict": STATE, "optimizer": Runs(os.system, touch)},
        "pathlib": Runs(Path.touch, canary),
        "partial": Runs(io.open, str(canary), "w"),
    }
    files = {name: saved(tmp_path / f"{name}.pt", content) for name, content in contents.items()}
    files["legacy"] = saved(tmp_path / "legacy.pt", contents["os.system"], _use_new_zipfile_serialization=False)
    for protocol in (0, 2, 4):
        files[f"raw {protocol}"] = tmp_path / f"raw{protocol}.pkl"
        files[f"raw {protocol}"].write_bytes(pickle.dumps(contents["os.system"], protocol))
    files["named safetensors"] = tmp_path / "raw.safetensors"
    files["named safetensors"].write_bytes(pickle.dumps(contents["os.system"]))
    files["tar"] = tmp_path / "legacy.tar"
    with tarfile.open(files["tar"], "w") as archive:
        archive.add(files["raw 2"], "pickle")
    return files


def test_code_is_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, path in malicious(tmp_path, canary).items():
        with pytest.raises(CheckpointError) as caught:
            read_state_dict(path)
        assert not canary.exists(), name
        assert caught.value.exit_code == 2
        assert len(str(caught.value).splitlines()) == 3, name
        assert "weights_only=False" not in str(caught.value)  # torch's own advice


def test_the_corpus_bites_a_careless_reader(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    files = malicious(tmp_path, canary)
    for name in ("os.system", "eval", "legacy", "in the optimizer"):
        torch.load(files[name], weights_only=False)
        assert canary.exists(), name
        canary.unlink()


def test_a_whole_model_names_the_class_and_the_way_to_save(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear(.|\n)*model\.state_dict\(\)"):
        read_state_dict(path)


def test_torchscript_and_exported_programs_are_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "a.pt")
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "b.pt2")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(CheckpointError, match="can carry code"):
            read_state_dict(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.99])
def test_a_truncated_file(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        saved(path, STATE, _use_new_zipfile_serialization=suffix == "pt")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="fix: ") as caught:
        read_state_dict(path)
    assert len(str(caught.value).splitlines()) == 3


def test_missing_empty_and_nonsense(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("hello, these are no weights")
    with pytest.raises(CheckpointError, match="No such file"):
        read_state_dict(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="is empty"):
        read_state_dict(tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match=r"truncated or damaged|more than tensors"):
        read_state_dict(tmp_path / "text.pt")
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([torch.zeros(1)], "it holds a list"),
        (torch.zeros(1), "it holds a Tensor"),
        ({}, "it holds nothing"),
        ({"epoch": 3, "lr": 0.1}, "'epoch' is a int"),
        (STATE | {"steps": 12}, "'steps' is a int"),
        ({"args": argparse.Namespace(lr=1)}, "it names argparse.Namespace"),
    ],
)
def test_what_is_not_a_state_dict(tmp_path: Path, content: object, why: str) -> None:
    with pytest.raises(CheckpointError, match=why):
        read_state_dict(saved(tmp_path / "a.pt", content))


def network(classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def test_apply_copies_every_tensor() -> None:
    source, target = network(), network()
    apply(target, source.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


class Versioned(nn.Linear):
    """Loads only what says its version, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state: dict, prefix: str, metadata: dict, *others: object) -> None:  # type: ignore[type-arg]
        if metadata.get("version") not in (1, 2):
            raise ValueError("version should be set")
        super()._load_from_state_dict(state, prefix, metadata, *others)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_layers_that_ask_for_a_version_are_told_theirs(tmp_path: Path, name: str) -> None:
    """A file of tensors alone has none."""
    trained, model = nn.Sequential(Versioned(3, 2)), nn.Sequential(Versioned(3, 2))
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(trained.state_dict(), path)
    else:
        safetensors.torch.save_file(trained.state_dict(), path)
    apply(model, read_state_dict(path)[0])
    assert torch.equal(model[0].weight, trained[0].weight)


def test_the_first_keys_of_both_sides_are_named() -> None:
    state = {f"encoder.{key}": tensor for key, tensor in network().state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing 0\.weight, 0\.bias.* more; unexpected encoder\.0\.weight"):
        apply(network(), state)


def test_one_missing_key_is_noticed() -> None:
    state = network().state_dict()
    del state["1.running_var"]
    with pytest.raises(CheckpointError, match=r"why: missing 1\.running_var\n"):
        apply(network(), state)


def test_other_numbers_of_classes_give_the_argument() -> None:
    with pytest.raises(CheckpointError, match=r"3\.weight is 5x4, the model has 2x4(.|\n)*add \?num_classes=5"):
        apply(network(2), network(5).state_dict())


def test_other_sizes_elsewhere_do_not() -> None:
    state = network().state_dict() | {"0.weight": torch.zeros(4, 3, 3, 3)}
    with pytest.raises(CheckpointError, match=r"0\.weight is 4x3x3x3, the model has 4x1x3x3") as caught:
        apply(network(), state)
    assert "num_classes" not in caught.value.fix


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_training_is_noticed(value: float) -> None:
    state = network().state_dict()
    state["3.bias"][1] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinity(.|\n)*3\.bias"):
        apply(network(), state)


def test_the_counter_of_batches_may_be_absent() -> None:
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    apply(network(), state)


def test_an_archive_that_would_grow_is_refused(tmp_path: Path) -> None:
    """torch itself inflates it: a few kilobytes could fill the memory."""
    whole = saved(tmp_path / "whole.pt", {"a": torch.zeros(300_000)})
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in source.infolist():
            bomb.writestr(member.filename, source.read(member))
    assert torch.load(tmp_path / "bomb.pt", weights_only=True)["a"].shape == (300_000,)
    with pytest.raises(
        CheckpointError, match=r"compressed archive\n  why: read out its \d{4} bytes would become 12\d{5};"
    ):
        read_state_dict(tmp_path / "bomb.pt")
