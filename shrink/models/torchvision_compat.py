"""The one place that imports torchvision, which fails beside a torch build it was not compiled against.

Its C++ operators are then not loaded, and its Python part stops at "operator torchvision::nms does not
exist". No classification model calls these operators: declaring their schemas is enough.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch

MISSING = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring its missing operators first if it fails without them.

    Call it before importing anything that imports torchvision, such as timm.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    make: Any = torch.library.Library  # torch leaves it untyped
    library = make("torchvision", "DEF")
    for schema in MISSING:
        library.define(schema)
    module = importlib.import_module("torchvision")
    module.__dict__["_declared_operators"] = library  # the schemas vanish when this object does
    return module
