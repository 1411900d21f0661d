"""Quantize a float .tflite with ai-edge-quantizer; needs only that package and numpy."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", action="version", version=f"ai-edge-quantizer {version('ai-edge-quantizer')}")
    parser.add_argument("--model", type=Path, required=True, help="float .tflite that takes (1, H, W, C)")
    parser.add_argument("--images", type=Path, required=True, help=".npy, normalized, (n, C, H, W)")
    parser.add_argument("--recipe", required=True, help="a function of ai_edge_quantizer.recipe")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()

    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-untyped,unused-ignore]

    images = np.load(asked.images).transpose(0, 2, 3, 1)
    signatures = Interpreter(model_path=str(asked.model)).get_signature_list()
    key = next(iter(signatures))
    name = signatures[key]["inputs"][0]
    mine = quantizer.Quantizer(str(asked.model), getattr(recipe, asked.recipe)())
    ranges = None
    if mine.need_calibration:
        ranges = mine.calibrate({key: [{name: np.ascontiguousarray(image[None])} for image in images]})
    result = mine.quantize(ranges)
    if not result.quantized_model:
        sys.exit("it gave no model")
    asked.out.write_bytes(bytes(result.quantized_model))


if __name__ == "__main__":
    main()
