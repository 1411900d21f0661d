"""What can go wrong in the toolkit, as one tree hung on the runner's.

    Problem (device_runner.errors)        exit code 1
    ├── RequestError                      2: what was asked for cannot be done as asked
    │   ├── RecipeError                   an unknown key or a value out of range
    │   ├── ModelError                    a model that cannot be found or built
    │   ├── CheckpointError               weights that are missing, damaged, unsafe or of another model
    │   ├── DataError                     images or labels that cannot be used
    │   ├── CalibrationError              calibration images that would give wrong ranges
    │   ├── OutputError                   an output directory that exists or cannot be written
    │   └── BoardError                    a board that cannot be reached, is not trusted or lacks something
    └── StageError                        1: a stage failed on a valid request
        ├── CaptureError                  the model has no graph with fixed shapes
        ├── LoweringError                 an op that the target cannot run
        ├── DivergenceError               a training whose loss became NaN or huge
        ├── ArtifactError                 a written file answers nonsense, or not what the model answers
        └── LinkError                     the connection to a board ended in the middle of a measurement

A verdict that fails is not an error: the command ends with exit code 3 and the report says why.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from device_runner.errors import Problem

__all__ = [
    "ArtifactError",
    "BoardError",
    "CalibrationError",
    "CaptureError",
    "CheckpointError",
    "DataError",
    "DivergenceError",
    "LinkError",
    "LoweringError",
    "ModelError",
    "OutputError",
    "Problem",
    "RecipeError",
    "RequestError",
    "StageError",
    "nearest",
]


class RequestError(Problem):
    """What was asked for cannot be done as asked; nothing was written."""

    exit_code = 2


class RecipeError(RequestError):
    """A recipe or flag with an unknown key or a value out of range."""


class ModelError(RequestError):
    """A model that cannot be found or built."""


class CheckpointError(RequestError):
    """Weights that are missing, damaged, unsafe or of another model."""


class DataError(RequestError):
    """Images or labels that cannot be used."""


class CalibrationError(RequestError):
    """Calibration images that would give wrong ranges."""


class OutputError(RequestError):
    """An output directory that exists or cannot be written."""


class BoardError(RequestError):
    """A board that cannot be reached, is not trusted, or lacks something."""


class StageError(Problem):
    """A stage failed on a valid request."""


class CaptureError(StageError):
    """The model could not be captured as one graph with fixed shapes."""


class LoweringError(StageError):
    """An op that the target's format or runtime cannot take."""


class DivergenceError(StageError):
    """A training whose loss became NaN or huge."""


class ArtifactError(StageError):
    """A written file that answers nonsense, or not what the model answers."""


class LinkError(StageError):
    """The connection to a board ended in the middle of a measurement."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Words for a `fix` line: the nearest known name, or all of them.

    >>> nearest("tflite-int9", ["tflite-int8", "onnx-fp32"])
    "did you mean 'tflite-int8'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"use one of: {', '.join(names)}"
