"""What may be held in fewer bits; what is computed from it stays 32-bit float.

Each large constant becomes a 16-bit one and an op that widens it. Both runtimes do that once, when they
load the file. Files of 16-bit floats hold all large constants so; 8-bit files the float tables that codes do not hold.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from shrink.errors import LoweringError
from shrink.graph.edit import constant, is_constant

LARGEST = float(torch.finfo(torch.float16).max)
EPS = float(torch.finfo(torch.float16).eps)
TABLE = 4096
"""Numbers in a constant that is added, multiplied or concatenated above which an 8-bit file holds it in 16 bits:
position biases and masks, as many bytes as the weights of some transformers."""


def is_table(numbers: NDArray[np.float32]) -> bool:
    """Whether a constant that is added, multiplied or concatenated is worth 16 bits in an 8-bit file, and fits.

    A number per channel is no table: it is the scale or the bias of a layer, and few bytes. Numbers that 16 bits hold
    with few digits only, as all below 6e-5, do not fit either.
    """
    if numbers.size < TABLE or max(numbers.shape) == numbers.size or float(np.abs(numbers).max()) > LARGEST:
        return False
    error = numbers.astype(np.float16).astype(np.float32) - numbers
    return float(np.linalg.norm(error)) <= EPS * float(np.linalg.norm(numbers))


def check_half(graph_module: fx.GraphModule) -> None:
    """Refuse a weight that is too large for 16 bits: it would become infinite.

    Raises:
        LoweringError: names the layer.
    """
    for node in graph_module.graph.nodes:
        if is_constant(node) and float(constant(graph_module, node).abs().max()) > LARGEST:
            layer = next((user.meta.get("layer") for user in node.users), "") or node.name
            raise LoweringError(
                f"a weight of layer {layer!r} does not fit into a 16-bit float",
                f"it is above {LARGEST:g}",
                "export to a target with 32-bit or 8-bit weights",
            )
