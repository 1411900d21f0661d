"""Trained weights from a file nobody vouches for: tensors are read, code is never run.

Only safetensors and `torch.load(weights_only=True)`; there is no second, less careful attempt. It is read
in this process: no code of the file runs, and an archive takes no more memory than the file has bytes, for
compressed members, which torch would inflate without limit, are refused.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from shrink.errors import CheckpointError

SAFE_TORCH = (2, 10)  # below it `weights_only=True` can be broken out of: CVE-2025-32434, CVE-2026-24747
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")  # first found is taken
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
SAVE = "save it with torch.save(model.state_dict(), 'weights.pt') or safetensors, and give that file"
AGAIN = "copy or download it again"
SHOWN = 3  # keys named in a message


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read the weights of a model.

    Returns:
        parameter name -> tensor on the CPU, and the sha256 of the file: of the very bytes that were read.
    """
    data = _bytes(path)
    content = _safetensors(path, data) if is_safetensors(path, data) else _torch(path, data)
    return _strip(_tensors(path, content)), hashlib.sha256(data).hexdigest()


def apply(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the weights into the module; every key and every shape must match."""
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(".num_batches_tracked")]  # unused in eval
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected:
        raise CheckpointError(
            "the checkpoint is of another model",
            "; ".join(filter(None, (_list("missing", missing), _list("unexpected", unexpected)))),
            "give the model that was trained, with the same arguments",
        )
    if shapes:
        pairs = [f"{key} is {_shape(state[key])}, the model has {_shape(own[key])}" for key in shapes]
        raise CheckpointError("the checkpoint is of a model with other sizes", _some(pairs), _sizes_fix(own, state))
    own.update(state)  # it also says of which version each layer is, which a plain file of tensors does not
    module.load_state_dict(own)
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            fix = "give a checkpoint from before the training diverged"
            raise CheckpointError("the checkpoint holds NaN or infinity", f"the first is in {key}", fix)


def is_safetensors(path: Path, data: bytes) -> bool:
    """By its name, or by its start: a length of the header (uint64) and the header's brace."""
    return path.suffix == ".safetensors" or (len(data) > 9 and data[8:9] == b"{" and data[6:8] == b"\0\0")


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}", str(error.strerror), "check the path") from error
    if not data:
        raise CheckpointError(f"the checkpoint {path} is empty", "it has 0 bytes", AGAIN)
    return data


def _safetensors(path: Path, data: bytes) -> object:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint {path} is truncated or damaged", str(error), AGAIN) from error


def _torch(path: Path, data: bytes) -> object:
    """A file of `torch.save`. Its own errors are not shown: they advise `weights_only=False`."""
    _check_torch_version()
    _check_archive(path, data)
    try:
        with warnings.catch_warnings(action="ignore"):  # on the pickle protocol: it loads or it does not
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"(__builtin__\.\w+|\w+\.\w+) ", str(error))
        why = f"it names {named[1]}" if named else "it is not the pickle of a state dict, or is damaged"
        what = f"the checkpoint {path} holds more than tensors and was not loaded"
        raise CheckpointError(what, f"{why}; reading that could run code", SAVE) from error
    except Exception as error:  # a damaged archive raises nearly anything
        why = f"{type(error).__name__} while it was read as a file of torch.save"
        raise CheckpointError(f"the checkpoint {path} is truncated or damaged", why, f"{AGAIN}, or {SAVE}") from error


def _check_torch_version() -> None:
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < SAFE_TORCH:
        why = "before 2.10 a crafted checkpoint can run code even so read"
        raise CheckpointError(f"torch {torch.__version__} cannot read checkpoints safely", why, "use safetensors")


def _check_archive(path: Path, data: bytes) -> None:
    """Only archives of `torch.save`: TorchScript and exported programs carry code by design."""
    if not data.startswith(b"PK"):
        return
    try:
        members = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"the checkpoint {path} is truncated or damaged", str(error), AGAIN) from error
    names = [Path(member.filename).name for member in members]
    if "data.pkl" not in names or "constants.pkl" in names:
        why = "it is TorchScript, an exported program or another archive, and those can carry code"
        raise CheckpointError(f"the checkpoint {path} is not a state dict", why, SAVE)
    inflated = sum(member.file_size for member in members)
    if any(member.compress_type for member in members) or inflated > len(data):
        why = f"read out its {len(data)} bytes would become {inflated}; torch.save compresses nothing"
        raise CheckpointError(f"the checkpoint {path} is a compressed archive", why, SAVE)


def _tensors(path: Path, content: object) -> dict[str, Tensor]:
    """The dict of tensors, taken out of a training checkpoint if it lies in one."""
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        kind = "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(f"the checkpoint {path} is not a state dict", f"it holds {kind}, not named tensors", SAVE)
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            why = f"{key!r} is a {type(tensor).__name__}, not a tensor"
            raise CheckpointError(f"the checkpoint {path} is not a state dict", why, SAVE)
    return dict(content)


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers of a model put before every key."""
    for prefix in PREFIXES * 2:  # they nest in either order
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _sizes_fix(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Names the argument, if the model differs only in the number of its outputs."""
    differing = [key for key in own if own[key].shape != state[key].shape]
    rows = {(own[key].shape[:1], state[key].shape[:1]) for key in differing}
    same_inputs = all(own[key].shape[1:] == state[key].shape[1:] for key in differing)
    if len(rows) == 1 and same_inputs:
        return f"add ?num_classes={state[differing[0]].shape[0]} to the model"
    return "give the model that was trained, with the same arguments"


def _list(word: str, keys: list[str]) -> str:
    return f"{word} {_some(keys)}" if keys else ""


def _some(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
