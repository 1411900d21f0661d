"""A training that can be killed at any moment: its whole state in a directory, the last two of them kept.

    FOLDER/00001200/state.json           what the state is of, where it stands, the SHA-256 of the tensors
                    tensors.safetensors  weights, the optimizer's moments, the best weights so far

A directory appears whole or not at all, and the older ones go only after the newer one is there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from shrink.errors import CheckpointError, OutputError
from shrink.files import appears_whole

STATE, TENSORS = "state.json", "tensors.safetensors"
KEPT = 2
FORMAT = 1


class Standing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a training stands."""

    identity: str  # of the model, the images and the settings: a state is only gone on with by the same
    step: int  # that were done
    losses: tuple[float, ...]  # of every step done
    judged: tuple[float, ...]  # the loss on held-out images before the first epoch and after each


class _State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int = FORMAT
    standing: Standing
    sha256: str


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The states of one training.

    Attributes:
        folder: holds nothing else.
        note: told of what a reader should know, such as a damaged state that was passed over.
    """

    folder: Path
    note: Callable[[str], None]

    def save(self, standing: Standing, tensors: Mapping[str, Tensor]) -> None:
        """Add a state; of the older ones the last stays.

        Raises:
            OutputError: it cannot be written; the states that were there still are.
        """
        data = safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})
        state = _State(standing=standing, sha256=hashlib.sha256(data).hexdigest())
        with appears_whole(self.folder / f"{standing.step:08d}", replace=True, is_ours=is_part) as work:
            (work / TENSORS).write_bytes(data)
            (work / STATE).write_bytes(msgspec.json.encode(state))
        for old in self._all()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self, identity: str) -> tuple[Standing, dict[str, Tensor]] | None:
        """The newest state that is whole; None if there is none at all.

        Raises:
            CheckpointError: all are damaged, or the newest is of another training.
        """
        found = self._all()
        for folder in reversed(found):
            try:
                standing, tensors = _read(folder)
            except (OSError, msgspec.DecodeError, SafetensorError, ValueError) as error:
                self.note(f"the checkpoint {folder} is damaged ({error}); the one before it is used")
                continue
            if standing.identity != identity:
                why = "its model, images or settings were others"
                raise CheckpointError(
                    f"{folder} is of another training", why, "give the same command, or leave --resume out"
                )
            return standing, tensors
        if found:
            why = f"{len(found)} are in {self.folder}, and none is whole"
            raise CheckpointError("no checkpoint can be read", why, "start anew, without --resume")
        return None

    def remove(self) -> None:
        """All of them: the training is done, or begins anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_new(self) -> None:
        """Refuse to begin beside the states of an earlier training.

        Raises:
            OutputError: there are some.
        """
        if self._all():
            why = "it was stopped before its end, and its checkpoints are there"
            fix = f"add --resume to go on with it, or remove {self.folder}"
            raise OutputError(f"{self.folder} holds an earlier training", why, fix)

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("[0-9]*") if (path / STATE).is_file())


def is_part(path: Path) -> bool:
    """Whether a file is one of a state's."""
    return path.name in (STATE, TENSORS)


def _read(folder: Path) -> tuple[Standing, dict[str, Tensor]]:
    data = (folder / TENSORS).read_bytes()
    state = msgspec.json.decode((folder / STATE).read_bytes(), type=_State)
    if state.format != FORMAT:
        raise ValueError(f"it has format {state.format}")
    if hashlib.sha256(data).hexdigest() != state.sha256:
        raise ValueError("its tensors are not those that were written")
    return state.standing, safetensors.torch.load(data)
